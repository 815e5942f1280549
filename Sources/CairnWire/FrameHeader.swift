/// skeleton
public enum FrameLayout { public static let headerBytes = 32 }
