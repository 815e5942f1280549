import CairnCore
import CairnLog

/// The tables that follow from the manifests: the dictionary, lists and counters.
extension Audit {
    mutating func parts() throws(StoreError) {
        var left = patched
        var problems: [String] = []
        try walk(.patched) { (key, value) throws(StoreError) in
            guard let lineage = key.take(UInt64.self), let version = key.take(UInt64.self),
                let chunk = key.take(UInt64.self)
            else { return }
            let place = PatchedPlace(
                lineage: LineageID(lineage),
                version: DataVersion(version),
                chunk: ChunkIndex(chunk)
            )
            let count = left.removeValue(forKey: place)
            if value.first.map(Int.init) != count.map({ min($0, 255) }) {
                problems.append(
                    "\(place) has \(count ?? 0) parts; the list of entries with parts says \(value.first ?? 0)"
                )
            }
        }
        for place in left.keys { problems.append("\(place) has parts and is not listed") }
        for problem in problems { report.note(problem) }
    }

    mutating func writtenMaps() throws(StoreError) {
        var found: [WrittenPlace: WrittenMap] = [:]
        try walk(.written) { (key, value) throws(StoreError) in
            guard let lineage = key.take(UInt64.self), let version = key.take(UInt64.self),
                let group = key.take(UInt64.self)
            else { return }
            let chunk = ChunkIndex(group * UInt64(WrittenMap.chunks))
            found[WrittenPlace(LineageID(lineage), DataVersion(version), chunk)] = try WrittenMap(value)
        }
        for (place, map) in found where map.isEmpty { report.note("\(place) is an empty written map") }
        written = found
        var children = 0
        var problems: [String] = []
        let lineages = lineages
        try walk(.children) { (key, _) throws(StoreError) in
            guard let parent = key.take(UInt64.self), let version = key.take(UInt64.self),
                let child = key.take(UInt64.self).map({ LineageID($0) })
            else { return }
            children += 1
            let known = lineages[child]?.parent
            if known?.lineage != LineageID(parent) || known?.version != DataVersion(version) {
                problems.append("lineage \(child) is listed as a child of lineage \(parent), and is none")
            }
        }
        if lineages.values.count(where: { $0.parent != nil }) != children {
            problems.append("\(children) children are listed; there are others")
        }
        for problem in problems { report.note(problem) }
    }

    /// What seals left for later ones goes with its lineage.
    mutating func sealNodes() throws(StoreError) {
        let lineages = lineages
        var problems: [String] = []
        for table in [Table.sealNodes, .sealBases] {
            try walk(table) { (key, value) throws(StoreError) in
                guard let lineage = key.take(UInt64.self).map({ LineageID($0) }) else { return }
                if lineages[lineage] == nil { problems.append("nodes of seals of lineage \(lineage), which is gone") }
                if table == .sealNodes { _ = try SealNode.decode(value) } else { _ = try SealBase.decode(value) }
            }
        }
        for problem in problems { report.note(problem) }
    }

    /// After the manifests: no mark may be left.
    mutating func checkWrittenMaps() {
        for (place, map) in written where !map.isEmpty {
            report.note("\(place) marks \(map.chunks(of: place.group)), which have no entry")
        }
    }

    mutating func deadList() throws(StoreError) {
        let lineages = lineages
        var problems: [String] = []
        var found: [PatchedPlace: DataVersion] = [:]
        try walk(.dead) { (key, _) throws(StoreError) in
            guard let lineage = key.take(UInt64.self), let death = key.take(UInt64.self),
                let chunk = key.take(UInt64.self),
                let birth = key.take(UInt64.self)
            else { return problems.append("a key of the dead list does not decode") }
            if lineages[LineageID(lineage)] == nil {
                problems.append("the dead list names lineage \(lineage), which is missing")
            }
            if birth >= death {
                problems.append(
                    "the dead list of lineage \(lineage) has a death at \(death) before the birth at \(birth)"
                )
            }
            let place = PatchedPlace(lineage: LineageID(lineage), version: DataVersion(birth), chunk: ChunkIndex(chunk))
            found[place] = min(found[place] ?? DataVersion(.max), DataVersion(death))
        }
        deaths = found
        for problem in problems { report.note(problem) }
    }

    /// A lease is a reference, and stands among the leases' ends.
    mutating func leases() throws(StoreError) {
        var problems: [String] = []
        var leased: [ChunkKey] = []
        var ends = 0
        let view = view
        try walk(.leases) { (key, value) throws(StoreError) in
            guard let chunk = key.takeChunk() else { return problems.append("a key of the leases does not decode") }
            let lease = try LeaseRecord.decode(value)
            leased.append(chunk)
            if try view.index.get(Key.leaseEnd(lease.expiresAt, chunk)) == nil {
                problems.append("the lease of chunk \(chunk.fingerprint) never ends")
            }
        }
        try walk(.leaseEnds) { (_, _) throws(StoreError) in ends += 1 }
        if ends != leased.count { problems.append("\(leased.count) leases; \(ends) are to end") }
        for chunk in leased { references[chunk, default: 0] += 1 }
        report.leases = leased.count
        for problem in problems { report.note(problem) }
    }

    mutating func dictionary() throws(StoreError) {
        var left = references
        var locations: [RecordLocation] = []
        var problems: [String] = []
        var (chunks, unreferenced) = (0, 0)
        var usage = counted
        let view = view
        try walk(.chunks) { (key, value) throws(StoreError) in
            guard let chunk = key.takeChunk() else { return }
            let fingerprint = chunk.fingerprint
            let record = try ChunkRecord.decode(value)
            let counted = left.removeValue(forKey: chunk) ?? 0
            chunks += 1
            locations.append(record.location)
            if record.references != counted {
                problems.append(
                    "chunk \(fingerprint) has \(record.references) references; \(counted) manifest entries and leases name it"
                )
            }
            let isListed = try view.index.get(Key.unreferenced(chunk)) != nil
            if record.references == 0 {
                unreferenced += 1
            } else {
                usage[chunk.account, default: AccountUsage()].uniqueBytes += UInt64(record.rawLength)
                usage[chunk.account, default: AccountUsage()].storedBytes += UInt64(record.location.length)
            }
            if isListed != (record.references == 0) {
                problems.append(
                    "chunk \(fingerprint) has \(record.references) references and is \(isListed ? "" : "not ")listed as unreferenced"
                )
            }
        }
        for chunk in left.keys {
            problems.append("chunk \(chunk.fingerprint) is in a manifest or leased and not in the dictionary")
        }
        var listed = 0
        try walk(.unreferenced) { (_, _) throws(StoreError) in listed += 1 }
        if listed != unreferenced {
            problems.append("\(listed) chunks are listed as unreferenced; \(unreferenced) are")
        }
        (report.chunks, report.unreferencedChunks) = (chunks, unreferenced)
        counted = usage
        for location in locations { count(location) }
        for problem in problems { report.note(problem) }
    }

    mutating func segments(_ known: Set<SegmentID>) throws(StoreError) {
        var left = liveBytes
        report.liveBytes = left.values.reduce(0, +)
        var problems: [String] = []
        try walk(.segments) { (key, value) throws(StoreError) in
            guard let id = key.take(UInt32.self).map({ SegmentID($0) }) else { return }
            let record = try SegmentRecord.decode(value)
            let counted = left.removeValue(forKey: id) ?? 0
            if record.liveBytes != counted {
                problems.append("segment \(id) is said to hold \(record.liveBytes) live bytes; it holds \(counted)")
            }
            if !known.contains(id) {
                problems.append("segment \(id) holds live bytes, and the log does not have it in use")
            }
        }
        for (id, bytes) in left { problems.append("segment \(id) holds \(bytes) live bytes, and is not listed") }
        for problem in problems { report.note(problem) }
    }

    mutating func volumesAndSnapshots() throws(StoreError) {
        var heads: Set<LineageID> = []
        var problems: [String] = []
        var listings = (volumes: 0, snapshots: 0, ofVolumes: 0)
        var (volumes, snapshots) = (0, 0)
        let (view, lineages, records) = (view, lineages, retainedRecords)
        try walk(.volumes) { (_, value) throws(StoreError) in
            let volume = try VolumeRecord.decode(value)
            volumes += 1
            heads.insert(volume.lineage)
            guard let lineage = lineages[volume.lineage], lineage.hasHead else {
                return problems.append("\(volume.id) has no lineage")
            }
            if volume.kind == .local, records[VersionKey(lineage: volume.lineage, version: volume.base)]?.isBase != true
            {
                problems.append("\(volume.id)'s base is not retained")
            }
            let listing = Key.volumeListing(lineage.account, volume.createdAt, volume.id.uuid)
            if try view.index.get(listing) == nil { problems.append("\(volume.id) is not listed") }
        }
        var held: Set<VersionKey> = []
        var waits = 0
        try walk(.snapshots) { (_, value) throws(StoreError) in
            let snapshot = try SnapshotRecord.decode(value)
            snapshots += 1
            let version = VersionKey(lineage: snapshot.lineage, version: snapshot.version)
            if snapshot.state != .error {
                held.insert(version)
                if records[version]?.hasSnapshot != true { problems.append("\(snapshot.id)'s version is not retained") }
            }
            let account = try view.accountNumber(snapshot.account)
            guard let account else { return problems.append("\(snapshot.id)'s account has no number") }
            let takesData = snapshot.state == .pending || snapshot.state == .creating
            if takesData != (records[version]?.isIncomplete == true), snapshot.state != .error {
                problems.append("\(snapshot.id) is \(snapshot.state), and its version is not")
            }
            let outstanding = try view.index.get(Key.outstanding(snapshot.volume, snapshot.version))
            if takesData != (outstanding == snapshot.id.uuid.stored) {
                problems.append("\(snapshot.id) is \(snapshot.state), and the list of those in progress differs")
            }
            let waiting = try view.index.get(Key.waiting(snapshot.lineage, snapshot.version))
            if (snapshot.state == .waiting) != (waiting == snapshot.id.uuid.stored) {
                problems.append("\(snapshot.id) is \(snapshot.state), and the list of those that wait differs")
            }
            waits += takesData ? 1 : 0
            waits += snapshot.state == .waiting ? 1 : 0
            let missing = try view.expectedRows(of: snapshot.id, from: ChunkIndex(0), limit: .max).rows
            if snapshot.isExpecting, UInt64(missing.count { $0.1.presence == .missing }) != snapshot.missing {
                problems.append("\(snapshot.id) counts \(snapshot.missing) missing chunks")
            }
            let id = snapshot.id.uuid
            let isListed = try view.index.get(Key.snapshotListing(account, snapshot.createdAt, id)) != nil
            let isListedByVolume =
                try view.index.get(Key.volumeSnapshots(snapshot.volume, snapshot.createdAt, id)) != nil
            if !isListed || !isListedByVolume { problems.append("\(snapshot.id) is not listed") }
        }
        for (place, record) in records where record.hasSnapshot && !held.contains(place) {
            problems.append(
                "lineage \(place.lineage) version \(place.version) is retained for a snapshot that is missing"
            )
        }
        for (id, lineage) in lineages where lineage.hasHead && !heads.contains(id) {
            problems.append("lineage \(id) has no volume, and is kept as if it had")
        }
        try walk(.outstanding) { (_, _) throws(StoreError) in waits -= 1 }
        try walk(.waiting) { (_, _) throws(StoreError) in waits -= 1 }
        if waits != 0 { problems.append("the lists of snapshots in progress name others") }
        try walk(.volumeListing) { (_, _) throws(StoreError) in listings.volumes += 1 }
        try walk(.snapshotListing) { (_, _) throws(StoreError) in listings.snapshots += 1 }
        try walk(.volumeSnapshots) { (_, _) throws(StoreError) in listings.ofVolumes += 1 }
        if listings != (volumes, snapshots, snapshots) {
            problems.append("\(volumes) volumes, \(snapshots) snapshots; the listings name \(listings)")
        }
        (report.volumes, report.snapshots) = (volumes, snapshots)
        for problem in problems { report.note(problem) }
    }
}
