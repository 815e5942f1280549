"""A client of Cairn, written from proto/PROTOCOL.md alone. It shows that the document is enough, and tests the server."""
