//! Writes the results as Markdown.

use std::fmt::{self, Display};
use std::time::Duration;

/// The measurements, and the goals they must meet.
#[derive(Default)]
pub struct Report {
    goals: Vec<[String; 4]>,
    sections: Vec<String>,
}

impl Report {
    /// Adds a goal: a value that must not exceed `limit`.
    pub fn at_most(&mut self, what: &str, limit: f64, value: f64, unit: &str) {
        self.goal(what, format!("at most {limit}{unit}"), value <= limit, value, unit);
    }

    pub fn at_least(&mut self, what: &str, limit: f64, value: f64, unit: &str) {
        self.goal(what, format!("at least {limit}{unit}"), value >= limit, value, unit);
    }

    fn goal(&mut self, what: &str, limit: String, met: bool, value: f64, unit: &str) {
        let met = if met { "yes" } else { "**no**" };
        self.goals.push([what.to_owned(), limit, format!("{value:.2}{unit}"), met.to_owned()]);
    }

    pub fn section(&mut self, heading: &str, text: impl Display) {
        eprintln!("{heading}: measured");
        self.sections.push(format!("### {heading}\n\n{text}"));
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut goals = Table::new(&["what", "must be", "is", "met"]);
        self.goals.iter().for_each(|goal| goals.row(goal.clone()));
        writeln!(f, "### What it must reach\n\n{goals}\n{}", self.sections.join("\n"))
    }
}

pub struct Table(String);

impl Table {
    pub fn new(columns: &[&str]) -> Self {
        let mut table = Self(String::new());
        table.row(columns);
        // The first column names the row, all others are figures.
        table.row(columns.iter().enumerate().map(|(place, _)| if place == 0 { "---" } else { "---:" }));
        table
    }

    pub fn row<T: Display>(&mut self, cells: impl IntoIterator<Item = T>) {
        for cell in cells {
            self.0 += &format!("| {cell} ");
        }
        self.0 += "|\n";
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Returns the median.
pub fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    let mut values = values.to_vec();
    values.sort_by(|one, other| one.partial_cmp(other).expect("numbers"));
    values[values.len() / 2]
}
