/// What a page of a listing still has room for: it ends with the item that uses up its items or its bytes.
public struct PageRoom {
    public private(set) var items: Int
    private var bytes: Int

    public init(items: Int, bytes: Int) { (self.items, self.bytes) = (items, bytes) }

    public var isUsedUp: Bool { items <= 0 || bytes <= 0 }

    public mutating func take(_ bytes: Int) {
        items -= 1
        self.bytes -= bytes
    }
}
