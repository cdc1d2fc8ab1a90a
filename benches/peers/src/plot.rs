//! The medians as a picture: a panel for each kind of run, a line for each system.

use std::fmt::Write;

use crate::rounds::{Cell, Mode, System};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 56.0;
/// Operations a second at the bottom and at the top, as powers of ten; what is beyond is drawn at
/// the edge.
const POWERS: (f64, f64) = (2.0, 7.25);

const COLOURS: [(System, &str); 8] = [
    (System::Vr, "#c0392b"),
    (System::Raft, "#2471a3"),
    (System::RaftEngine, "#5dade2"),
    (System::Omni, "#239b56"),
    (System::Openraft, "#b9770e"),
    (System::Etcd, "#8e44ad"),
    (System::Openraft10, "#dc7633"),
    (System::Floor, "#7f8c8d"),
];

/// An SVG of operations a second over clients; both axes are logarithmic.
pub fn svg(cells: &[Cell]) -> String {
    let mut panels: Vec<(Mode, usize)> = Vec::new();
    for cell in cells {
        if !panels.contains(&(cell.mode, cell.payload)) {
            panels.push((cell.mode, cell.payload));
        }
    }
    let rows = panels.len().div_ceil(2).max(1) as f64;
    let (width, height) = (2.0 * WIDTH, rows * HEIGHT + 30.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"white\"/>\n"
    );
    for (at, (mode, payload)) in panels.iter().enumerate() {
        let origin = ((at % 2) as f64 * WIDTH, (at / 2) as f64 * HEIGHT);
        let cells: Vec<&Cell> =
            cells.iter().filter(|cell| (cell.mode, cell.payload) == (*mode, *payload)).collect();
        panel(&mut out, origin, &format!("{}, {payload} bytes", mode.name()), &cells);
    }
    for (at, (system, colour)) in COLOURS.iter().enumerate() {
        let (x, y) = (16.0 + at as f64 * 103.0, rows * HEIGHT + 16.0);
        let name = system.name();
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{name}</text>");
    }
    out + "</svg>\n"
}

fn panel(out: &mut String, origin: (f64, f64), title: &str, cells: &[&Cell]) {
    let (left, top) = (origin.0 + MARGIN, origin.1 + 30.0);
    let (width, height) = (WIDTH - MARGIN - 20.0, HEIGHT - 70.0);
    let x = |at: usize| left + width * at as f64 / cells.len().saturating_sub(1).max(1) as f64;
    let y = |rate: f64| {
        let power = rate.max(1.0).log10().clamp(POWERS.0, POWERS.1);
        top + height * (POWERS.1 - power) / (POWERS.1 - POWERS.0)
    };
    let _ =
        writeln!(out, "<text x=\"{left}\" y=\"{}\" font-size=\"13\">{title}</text>", top - 10.0);
    for power in POWERS.0 as i32..=POWERS.1 as i32 {
        let at = y(10_f64.powi(power));
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">10^{power}</text>",
            left + width,
            left - 6.0,
            at + 4.0
        );
    }
    for (at, cell) in cells.iter().enumerate() {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(at),
            top + height + 16.0,
            cell.clients
        );
    }
    for (system, colour) in COLOURS {
        let points: Vec<String> = cells
            .iter()
            .enumerate()
            .filter_map(|(at, cell)| {
                let (rate, _) = cell.medians(system)?;
                Some(format!("{:.1},{:.1}", x(at), y(rate)))
            })
            .collect();
        let points = points.join(" ");
        let _ = writeln!(
            out,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
    }
}
