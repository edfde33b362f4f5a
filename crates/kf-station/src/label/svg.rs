//! A label as SVG: one path and lines of text, no styles, so that it passes any content security policy.

use std::fmt::Write as _;

use super::{Label, Matrix, QUIET_ZONE};

/// 50 × 25 mm; the QR code with its quiet zone takes the left 25.
pub(super) fn label(matrix: &Matrix, label: &Label) -> String {
    let modules = matrix.width + 2 * QUIET_ZONE;
    let mut path = String::new();
    for (x, y, length) in matrix.runs() {
        // Writing to a string cannot fail.
        let _written = write!(path, "M{} {}h{length}v1h-{length}z", x + QUIET_ZONE, y + QUIET_ZONE);
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"50mm\" height=\"25mm\" viewBox=\"0 0 {} {modules}\">\n\
         <rect width=\"{}\" height=\"{modules}\" fill=\"#fff\"/>\n<path fill=\"#000\" d=\"{path}\"/>\n",
        2 * modules,
        2 * modules
    );
    for (number, line) in label.lines().iter().enumerate() {
        let y = (number + 1) * modules / 5;
        let size = modules / 9;
        let _written = writeln!(
            svg,
            "<text x=\"{}\" y=\"{y}\" font-family=\"monospace\" font-size=\"{size}\">{}</text>",
            modules + 1,
            escape(line)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
