// swift-tools-version: 6.1
import PackageDescription

func system(_ name: String, _ pkgConfig: String, _ apt: String) -> Target {
    .systemLibrary(name: name, pkgConfig: pkgConfig, providers: [.apt([apt])])
}
let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let collections: Target.Dependency = .product(name: "Collections", package: "swift-collections")

// Intel's Multi-Buffer Crypto library (libipsec-mb-dev): Debian has it for this processor alone.
#if arch(x86_64)
    let vectorCrypto: [LinkerSetting] = [.linkedLibrary("IPSec_MB")]
#else
    let vectorCrypto: [LinkerSetting] = []
#endif

// From the bottom up: imports run strictly towards the top of this list (README, "Where things are").
let targets: [Target] = [
    system("CProtobufC", "libprotobuf-c", "libprotobuf-c-dev"),
    system("COpenSSL", "openssl", "libssl-dev"),
    system("CLZ4", "liblz4", "liblz4-dev"),
    system("CRocksDB", "rocksdb", "librocksdb-dev"),
    // C++, for RocksDB's C API cannot do it.
    .target(name: "CRocksDBLog", dependencies: ["CRocksDB"]),
    system("CZlib", "zlib", "zlib1g-dev"),
    .systemLibrary(name: "CEpoll"),
    .systemLibrary(name: "CLinuxFile"),
    .target(name: "CCairnChecksum"),
    .target(name: "CCairnSHA256"),
    .target(name: "CCairnGCM", dependencies: ["COpenSSL"], linkerSettings: vectorCrypto),
    .target(name: "CCairnProto", dependencies: ["CProtobufC"]),
    .target(name: "CairnCore", dependencies: ["CCairnChecksum", "CLZ4", "CZlib", collections]),
    .target(name: "CairnCrypto", dependencies: ["CairnCore", "CCairnGCM", "CCairnSHA256", "COpenSSL"]),
    .target(name: "CairnWire", dependencies: ["CairnCore", "CCairnProto", "CProtobufC"]),
    .target(name: "CairnTransport", dependencies: ["CairnCore", "CairnCrypto", "CEpoll", logging, collections]),
    .target(
        name: "CairnRPC",
        dependencies: ["CairnCore", "CairnCrypto", "CairnWire", "CairnTransport", logging, collections]
    ),
    .target(name: "CairnLog", dependencies: ["CLinuxFile", "CairnCore"], exclude: ["FORMAT.md"]),
    .target(
        name: "CairnStore",
        dependencies: ["CairnCore", "CairnCrypto", "CairnLog", "CRocksDB", "CRocksDBLog", logging, collections],
        exclude: ["FORMAT.md"]
    ),
    .target(
        name: "CairnService",
        dependencies: ["CairnCore", "CairnCrypto", "CairnWire", "CairnStore", logging, collections]
    ),
    .target(
        name: "CairnServer",
        dependencies: ["CairnCore", "CairnCrypto", "CairnWire", "CairnRPC", "CairnService", logging]
    ),
    .target(
        name: "CairnClient",
        dependencies: ["CLinuxFile", "CairnCore", "CairnCrypto", "CairnWire", "CairnRPC", logging, collections]
    ),
    // Not a product: tools/compare/pollers builds and runs it.
    .executableTarget(
        name: "cairn-poll-bench",
        dependencies: ["CairnRPC", "CairnTransport", "CairnCrypto", "CairnCore", "CairnWire"]
    ),
    // Not a product: tools/growth builds and runs it.
    .executableTarget(
        name: "cairn-growth",
        dependencies: ["CairnClient", "CairnCore", "CairnStore", "CairnTransport", argumentParser]
    ),
    // Not a product: tools/fairness builds and runs it.
    .executableTarget(
        name: "cairn-fairness",
        dependencies: ["CairnBench", "CairnClient", "CairnCore", "CairnTransport", argumentParser]
    ),
    .executableTarget(name: "cairnd", dependencies: ["CairnServer", "CairnStore", argumentParser, logging]),
    .target(name: "CairnSettings", dependencies: ["CairnClient", "CairnTransport", argumentParser]),
    .executableTarget(name: "cairn", dependencies: ["CairnClient", "CairnCrypto", "CairnSettings", argumentParser]),
    // This machine's primitives, for `cairn-bench ceilings`: shares no code with the server.
    .target(
        name: "CCairnCeilings",
        dependencies: ["COpenSSL", "CLZ4", "CRocksDB"],
        linkerSettings: vectorCrypto
    ),
    .target(
        name: "CairnBench",
        dependencies: ["CCairnCeilings", "CLinuxFile", "CairnClient", "CairnCore"]
    ),
    .executableTarget(name: "cairn-bench", dependencies: ["CairnBench", "CairnSettings", argumentParser]),
    .target(name: "CairnTesting", path: "Tests/CairnTesting"),
    // Never linked: tests preload it into the servers that they start. A product, so that it is built as a library.
    .target(name: "CCairnFaults", path: "Tests/CCairnFaults"),
    .testTarget(name: "CairnCoreTests", dependencies: ["CairnCore", "CairnTesting"]),
    .testTarget(name: "CairnCryptoTests", dependencies: ["CairnCrypto", "CCairnSHA256", "COpenSSL"]),
    .testTarget(
        name: "CairnWireTests",
        dependencies: ["CairnWire", "CairnTesting", .product(name: "SwiftProtobuf", package: "swift-protobuf")]
    ),
    .testTarget(name: "CairnTransportTests", dependencies: ["CairnTransport", "CairnCrypto"]),
    .testTarget(name: "CairnRPCTests", dependencies: ["CairnRPC", "CairnCrypto", "CairnTesting"]),
    .testTarget(name: "CairnLogTests", dependencies: ["CairnLog", "CairnTesting"]),
    .testTarget(name: "CairnStoreTests", dependencies: ["CairnStore", "CairnCrypto", "CairnTesting"]),
    .testTarget(name: "CairnServiceTests", dependencies: ["CairnService", "CairnCrypto", "CairnTesting"]),
    .testTarget(name: "CairnServerTests", dependencies: ["CairnServer", "CairnTesting"]),
    .testTarget(name: "CairnClientTests", dependencies: ["CairnClient", "CairnTesting"]),
    .testTarget(name: "CairnCommandTests", dependencies: ["CairnSettings", "cairn"]),
    .testTarget(name: "CairnBenchTests", dependencies: ["CairnBench", "CairnTesting"]),
    .testTarget(
        name: "EndToEndTests",
        dependencies: [
            "CairnBench", "CairnClient", "CairnCrypto", "CairnRPC", "CairnStore", "CairnTesting", "cairn",
            "cairn-bench", "cairnd",
            logging,
        ]
    ),
]

// tools/tsan sets CAIRN_TSAN, and builds of the tests only those of what is concurrent: the others take long to instrument.
let concurrent: Set = ["CairnTransportTests", "CairnRPCTests", "CairnStoreTests", "CairnServiceTests"]
let isWanted: (Target) -> Bool = {
    Context.environment["CAIRN_TSAN"] == nil || !$0.isTest || concurrent.contains($0.name)
}

// tools/fuzz builds the fuzzers with CAIRN_FUZZ set, against libFuzzer; else their corpora are run as tests.
let fuzzed: [Target.Dependency] = [
    "CairnCore", "CairnCrypto", "CairnWire", "CairnTransport", "CairnRPC", "CairnLog", "CairnStore", "CairnService",
]
let fuzzing: Target =
    Context.environment["CAIRN_FUZZ"] == nil
    ? .testTarget(
        name: "FuzzTests",
        dependencies: fuzzed + ["CairnTesting"],
        path: "Tests/Fuzz",
        exclude: ["Driver", "corpus"]
    )
    : .executableTarget(
        name: "cairn-fuzz",
        dependencies: fuzzed,
        path: "Tests/Fuzz",
        exclude: ["Replay", "corpus"]
    )

let package = Package(
    name: "cairn",
    products: [
        .library(name: "CairnClient", targets: ["CairnClient"]),
        .executable(name: "cairnd", targets: ["cairnd"]),
        .executable(name: "cairn", targets: ["cairn"]),
        .executable(name: "cairn-bench", targets: ["cairn-bench"]),
        .library(name: "CairnFaults", type: .dynamic, targets: ["CCairnFaults"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
    ],
    targets: (targets + [fuzzing]).filter(isWanted),
    swiftLanguageModes: [.v6],
    cLanguageStandard: .c11,
    cxxLanguageStandard: .cxx17
)
