/// Told by a thread that is about to wait for the disk, so that another can do what this one would: for reads of little, of which a disk
/// carries out many at once.
/// Each wait has its end, on the same thread.
public protocol DiskWaits: Sendable {
    func beginWait()
    func endWait()
}
