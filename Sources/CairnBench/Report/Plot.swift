import Foundation

/// A line plot or bar chart as inline SVG: numbers in, text out. Colours come from the page's style (classes `s0`…`s7`), so that
/// they change with the page's scheme.
struct Plot {
    /// How numbers lie along an axis.
    enum Scale {
        case linear, logarithmic
    }
    struct Axis {
        let title: String
        let scale: Scale
        let range: ClosedRange<Double>
        let ticks: [(value: Double, text: String)]
    }
    struct Line {
        let name: String
        let points: [(x: Double, y: Double)]
    }
    let title: String
    /// What it shows, for those who do not see it.
    let description: String
    let x: Axis
    let y: Axis
    let lines: [Line]

    private static let (width, height) = (860.0, 360.0)
    private static let (left, right, top, bottom) = (76.0, 16.0, 14.0, 46.0)

    /// - Parameter id: unique in the page.
    func svg(id: String) -> String {
        var text = Self.open(id: id, title: title, description: description, height: Self.height)
        text += frame
        for (number, line) in lines.enumerated() where !line.points.isEmpty {
            let points = line.points.map { "\(Self.number(place(x: $0.x))),\(Self.number(place(y: $0.y)))" }
            // A dash of its own for each, for those who do not tell colours apart.
            text += "<polyline class=\"line s\(number % 8)\" points=\"\(points.joined(separator: " "))\"/>\n"
            for point in line.points where line.points.count <= 40 {
                let centre = "cx=\"\(Self.number(place(x: point.x)))\" cy=\"\(Self.number(place(y: point.y)))\""
                text += "<circle class=\"dot s\(number % 8)\" \(centre) r=\"2.5\"/>\n"
            }
        }
        return text + "</svg>\n" + Self.legend(lines.map(\.name), isOfLines: true)
    }

    private var frame: String {
        let (low, high) = (Self.height - Self.bottom, Self.width - Self.right)
        var text = ""
        for tick in y.ticks {
            let at = Self.number(place(y: tick.value))
            text += "<line class=\"grid\" x1=\"\(Self.left)\" y1=\"\(at)\" x2=\"\(high)\" y2=\"\(at)\"/>"
            text +=
                "<text class=\"tick\" x=\"\(Self.left - 8)\" y=\"\(at)\" dy=\"4\" text-anchor=\"end\">\(tick.text.escaped)</text>\n"
        }
        for tick in x.ticks {
            let at = Self.number(place(x: tick.value))
            // The last one must not stand out of the picture.
            let anchor = place(x: tick.value) > high - 20 ? "end" : "middle"
            text += "<line class=\"grid\" x1=\"\(at)\" y1=\"\(Self.top)\" x2=\"\(at)\" y2=\"\(low)\"/>"
            text +=
                "<text class=\"tick\" x=\"\(at)\" y=\"\(low + 18)\" text-anchor=\"\(anchor)\">\(tick.text.escaped)</text>\n"
        }
        text += "<line class=\"axis\" x1=\"\(Self.left)\" y1=\"\(low)\" x2=\"\(high)\" y2=\"\(low)\"/>\n"
        let middle = Self.number((Self.left + high) / 2)
        text +=
            "<text class=\"label\" x=\"\(middle)\" y=\"\(Self.height - 8)\" text-anchor=\"middle\">\(x.title.escaped)</text>\n"
        let side = Self.number((Self.top + low) / 2)
        text +=
            "<text class=\"label\" transform=\"translate(14 \(side)) rotate(-90)\" text-anchor=\"middle\">\(y.title.escaped)</text>\n"
        return text
    }

    private func place(x value: Double) -> Double {
        Self.left + Self.part(value, x) * (Self.width - Self.left - Self.right)
    }

    private func place(y value: Double) -> Double {
        Self.height - Self.bottom - Self.part(value, y) * (Self.height - Self.top - Self.bottom)
    }

    /// 0 at the axis' start, 1 at its end; what lies beyond is drawn at the end.
    private static func part(_ value: Double, _ axis: Axis) -> Double {
        let (low, high) = (axis.range.lowerBound, axis.range.upperBound)
        guard high > low else { return 0 }
        let part: Double
        switch axis.scale {
        case .linear: part = (value - low) / (high - low)
        case .logarithmic: part = log(max(value, low) / low) / log(high / low)
        }
        return min(max(part, 0), 1)
    }
}

extension Plot {
    /// Horizontal bars in groups: for each group a bar of each series that has a value.
    static func bars(
        id: String,
        title: String,
        description: String,
        groups: [(name: String, values: [Double?])],
        series: [String],
        unit: String
    ) -> String {
        let most = groups.flatMap { $0.values.compactMap { $0 } }.max() ?? 0
        let (bar, gap, label) = (18.0, 12.0, 270.0)
        let count = groups.reduce(0) { $0 + max(1, $1.values.compactMap { $0 }.count) }
        let height = Double(count) * bar + Double(groups.count) * gap + 8
        var text = open(id: id, title: title, description: description, height: height)
        var y = 8.0
        for group in groups {
            let shown = group.values.enumerated().compactMap { number, value in value.map { (number, $0) } }
            let middle = number(y + Double(max(1, shown.count)) * bar / 2)
            text +=
                "<text class=\"label\" x=\"\(label - 10)\" y=\"\(middle)\" dy=\"4\" text-anchor=\"end\">\(group.name.escaped)</text>\n"
            for (place, value) in shown {
                let width = most > 0 ? value / most * (Self.width - label - 110) : 0
                text +=
                    "<rect class=\"bar s\(place % 8)\" x=\"\(label)\" y=\"\(number(y))\" width=\"\(number(max(width, 1)))\" height=\"\(bar - 3)\"/>"
                let end = number(label + width + 8)
                text +=
                    "<text class=\"tick\" x=\"\(end)\" y=\"\(number(y + bar / 2))\" dy=\"3\">\(Text.digits(value)) \(unit.escaped)</text>\n"
                y += bar
            }
            if shown.isEmpty { y += bar }
            y += gap
        }
        return text + "</svg>\n" + legend(series, isOfLines: false)
    }

    private static func open(id: String, title: String, description: String, height: Double) -> String {
        """
        <svg viewBox="0 0 \(number(width)) \(number(height))" role="img" aria-labelledby="\(id)-t \(id)-d">
        <title id="\(id)-t">\(title.escaped)</title>
        <desc id="\(id)-d">\(description.escaped)</desc>

        """
    }

    /// Of lines with their dashes, for those who do not tell colours apart.
    private static func legend(_ names: [String], isOfLines: Bool) -> String {
        let items = names.enumerated().map { number, name in
            let style = "s\(number % 8)"
            let line = "<line class=\"line \(style)\" x1=\"0\" y1=\"5\" x2=\"34\" y2=\"5\"/>"
            let key =
                isOfLines
                ? "<svg class=\"sample\" viewBox=\"0 0 34 10\" aria-hidden=\"true\">\(line)</svg>"
                : "<span class=\"key \(style)\"></span>"
            return "<li>\(key)\(name.escaped)</li>"
        }
        return "<ul class=\"legend\">\(items.joined())</ul>\n"
    }

    /// Two decimals at most: a page is read by eyes.
    static func number(_ value: Double) -> String {
        let text = String(format: "%.2f", value)
        return text.hasSuffix(".00") ? String(text.dropLast(3)) : text
    }
}

extension Plot.Axis {
    /// From 0 to a round number above all values, or to the largest itself.
    static func linear(
        _ title: String,
        _ values: [Double],
        isTight: Bool = false,
        text: (Double) -> String
    ) -> Plot.Axis {
        let most = max(values.max() ?? 0, 1e-9)
        let magnitude = pow(10, floor(log10(most)))
        let step = [0.1, 0.2, 0.25, 0.5, 1, 2, 2.5].map { $0 * magnitude }.first { most / $0 <= 6 } ?? magnitude * 5
        let end = isTight ? most : (most / step).rounded(.up) * step
        let ticks = stride(from: 0, through: end * 1.0001, by: step).map { (value: $0, text: text($0)) }
        return Plot.Axis(title: title, scale: .linear, range: 0...end, ticks: ticks)
    }

    /// Over whole powers of ten around all values.
    static func logarithmic(_ title: String, _ values: [Double], text: (Double) -> String) -> Plot.Axis {
        let positive = values.filter { $0 > 0 }
        let low = floor(log10(positive.min() ?? 1))
        let high = max(low + 1, ceil(log10(positive.max() ?? 10)))
        let ticks = stride(from: low, through: high, by: 1).map { (value: pow(10, $0), text: text(pow(10, $0))) }
        return Plot.Axis(title: title, scale: .logarithmic, range: pow(10, low)...pow(10, high), ticks: ticks)
    }
}

extension String {
    /// As text or as an attribute's value in HTML and XML. Characters that XML has not are left out.
    var escaped: String {
        var text = ""
        for scalar in unicodeScalars {
            switch scalar {
            case "&": text += "&amp;"
            case "<": text += "&lt;"
            case ">": text += "&gt;"
            case "\"": text += "&quot;"
            case "'": text += "&#39;"
            case _ where scalar.value < 32 && scalar != "\n" && scalar != "\t": break
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text
    }
}
