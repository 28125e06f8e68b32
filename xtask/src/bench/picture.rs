//! `pid1/footprint.svg`: memory and size out of the table, as bars.

use std::fmt::Write as _;

/// All in the picture's own units.
const WIDTH: f64 = 720.0;
const ROW: f64 = 22.0;
const LABELS: f64 = 170.0;
const FIGURES: f64 = 90.0;

/// In light and in dark, as the reader's system has it.
const STYLE: &str = "\
  text { font: 13px sans-serif; fill: #24292f }
  .title { font-weight: bold }
  rect { fill: #8c959f }
  .first { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .first { fill: #3fb950 } }
";

/// The picture of the table that the README has; the first row is pid1's.
pub fn picture(table: &str) -> String {
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let column = |place: usize| -> Vec<(&str, f64)> {
        let value = |cells: &Vec<&str>| cells.get(place)?.split(' ').next()?.parse().ok();
        rows.iter().filter_map(|cells| Some((*cells.get(1)?, value(cells)?))).collect()
    };
    let mut y = 0.0;
    let mut bars = String::new();
    for (title, place) in [("Memory while idle, resident KB", 3), ("Size of the binary, bytes", 2)]
    {
        bars.push_str(&group(title, &column(place), &mut y));
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" role=\"img\" \
         aria-label=\"Memory and size of pid1 beside other inits\">\n<style>\n{STYLE}</style>\n\
         {bars}</svg>\n"
    )
}

/// A title and a bar for each value, from `y` downwards.
fn group(title: &str, rows: &[(&str, f64)], y: &mut f64) -> String {
    let longest = rows.iter().map(|(_, value)| *value).fold(1.0, f64::max);
    let mut text = String::new();
    *y += ROW;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "<text class=\"title\" x=\"0\" y=\"{}\">{title}</text>", *y - 6.0);
    for (place, (name, value)) in rows.iter().enumerate() {
        let width = (WIDTH - LABELS - FIGURES) * value / longest;
        let class = if place == 0 { " class=\"first\"" } else { "" };
        let (top, base, end) = (*y + 3.0, *y + 16.0, LABELS + width + 6.0);
        let _ = writeln!(
            text,
            "<text x=\"12\" y=\"{base}\">{name}</text>\
             <rect{class} x=\"{LABELS}\" y=\"{top}\" width=\"{width:.1}\" height=\"16\"/>\
             <text x=\"{end:.1}\" y=\"{base}\">{value}</text>"
        );
        *y += ROW;
    }
    *y += ROW / 2.0;
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_its_room_and_the_others_are_in_proportion() {
        let table = "| init | bytes | resident KB |\n|---|---:|---:|\n| pid1 | 100 | 10 |\n\
                     | other | 400 (×4.0) | 40 (×4.0) |\n| no init | - | - |\n";
        let picture = picture(table);
        assert_eq!(picture.matches("width=\"460.0\"").count(), 2, "{picture}");
        assert_eq!(picture.matches("width=\"115.0\"").count(), 2, "{picture}");
        assert!(!picture.contains("no init"), "{picture}");
    }

    #[test]
    fn the_picture_shows_what_the_readme_s_table_says() {
        let root = crate::paths::root();
        let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
        let (_, rest) = readme.split_once("<!-- bench: ").unwrap();
        let (table, _) = rest.split_once("<!-- /bench -->").unwrap();
        let committed = std::fs::read_to_string(crate::paths::picture()).unwrap_or_default();
        assert!(committed == picture(table), "pid1/footprint.svg should be:\n{}", picture(table));
    }
}
