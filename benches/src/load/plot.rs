//! A picture of numbers that should stay flat: a panel for each kind, a line for each replica.

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 56.0;
const COLOURS: [&str; 5] = ["#c0392b", "#2471a3", "#239b56", "#b9770e", "#7f8c8d"];

/// Lines over one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What they show, with the unit.
    pub title: String,
    /// What a line is called, and its points from left to right.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// The panels below each other, as SVG; both axes begin at zero, and all have the same lower one.
#[must_use]
pub fn svg(panels: &[Panel], below: &str) -> String {
    let points = || panels.iter().flat_map(|panel| &panel.lines).flat_map(|(_, line)| line);
    let right = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let count = f64::from(u32::try_from(panels.len()).unwrap_or(u32::MAX));
    let height = count * HEIGHT + 24.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut top = 0.0;
    for panel in panels {
        draw(&mut out, panel, top, right);
        top += HEIGHT;
    }
    text(&mut out, (WIDTH / 2.0, height - 8.0), "middle", "#000", below);
    out + "</svg>\n"
}

fn draw(out: &mut String, panel: &Panel, above: f64, right: f64) {
    let (left, top) = (MARGIN, above + 34.0);
    let (width, height) = (WIDTH - MARGIN - 20.0, HEIGHT - 70.0);
    let highest = panel.lines.iter().flat_map(|(_, line)| line).map(|(_, y)| *y);
    let highest = (highest.fold(1.0, f64::max) * 1.1).ceil();
    let x = |value: f64| left + width * value / right;
    let y = |value: f64| top + height * (1.0 - value / highest);
    text(out, (left, top - 14.0), "start", "#000", &panel.title);
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let at = y(highest * part);
        out.push_str(&format!(
            "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n",
            left + width
        ));
        text(out, (left - 6.0, at + 4.0), "end", "#000", &format!("{:.0}", highest * part));
        let word = format!("{:.0}", right * part);
        text(out, (x(right * part), top + height + 16.0), "middle", "#000", &word);
    }
    let mut word_at = left + 150.0;
    for ((name, line), colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> =
            line.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        out.push_str(&format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            points.join(" ")
        ));
        text(out, (word_at, top - 14.0), "start", colour, name);
        word_at += 90.0;
    }
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, colour: &str, words: &str) {
    out.push_str(&format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>\n"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_within_its_panel() {
        let line = vec![(0.0, 10.0), (5.0, 20.0), (10.0, 0.0)];
        let lines = vec![("one".to_owned(), line.clone()), ("two".to_owned(), line)];
        let panel = |title: &str| Panel { title: title.to_owned(), lines: lines.clone() };
        let picture = svg(&[panel("memory"), panel("disk")], "operations");
        assert_eq!(picture.matches("<polyline").count(), 4);
        assert_eq!(picture.matches(">two<").count(), 2);
        let drawn = picture.lines().filter_map(|line| line.strip_prefix("<polyline points=\""));
        for (at, points) in drawn.enumerate() {
            let (points, _) = points.split_once('"').unwrap();
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                let above = if at < 2 { 0.0 } else { HEIGHT };
                assert!((0.0..=WIDTH).contains(&x) && (above..=above + HEIGHT).contains(&y));
            }
        }
    }
}
