/// Told by a thread that is about to wait for the disk, so that another can do what this one would: for reads of little, of which a disk
/// carries out many at once.
public protocol DiskWaits: Sendable {
    func beginWait()
    func endWait()
}
