/// With whom a connection shares its turns on a loop: all connections of one share move as much together as those of any other (SPEC
/// R3).
enum LoopShare: Hashable {
    /// Who has not proved who it is: a flood of handshakes has one share.
    case strangers
    /// One connection for itself, by its token.
    case connection(UInt64)
    /// Those of one party, see ``Connection/belongs(to:)``.
    case party(Int)
}
