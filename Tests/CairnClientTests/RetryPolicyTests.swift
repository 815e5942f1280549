import Testing

@testable import CairnClient
