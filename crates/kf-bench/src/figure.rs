//! One line of the report.

use std::fmt;

use serde::Serialize;

use crate::error::BenchError;

/// What a figure is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    /// Costs: the ratio (or, without a yardstick, the value) is at most this.
    AtMost(f64),
    /// Rates: the ratio (or value) is at least this.
    AtLeast(f64),
    /// Reported only.
    None,
}

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    /// Multiples of the yardstick; absent where there is none.
    ratio: Option<f64>,
    yardstick: Option<&'static str>,
    aim: Option<String>,
    holds: Option<bool>,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Figure {
    pub(crate) const HEADING: &'static str =
        "figure                                        value  unit              ratio  yardstick  aim        holds";

    /// A value without a yardstick.
    pub(crate) fn value(name: impl Into<String>, value: f64, unit: &'static str, aim: Aim) -> Self {
        let (aim, holds) = judge(aim, value);
        Self { name: name.into(), ratio: None, yardstick: None, aim, holds, value, unit, note: None }
    }

    /// A value as a multiple of a yardstick. A ratio of rates is the inverse of the ratio of costs; both are given in
    /// the sense of the aim.
    pub(crate) fn ratio(
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        ratio: f64,
        yardstick: &'static str,
        aim: Aim,
    ) -> Self {
        let (aim, holds) = judge(aim, ratio);
        Self { name: name.into(), ratio: Some(ratio), yardstick: Some(yardstick), aim, holds, value, unit, note: None }
    }

    /// Something that could not be measured here, and why.
    pub(crate) fn absent(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { note: Some(why.into()), ..Self::value(name, 0.0, "absent", Aim::None) }
    }

    pub(crate) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    pub(crate) fn to_json(&self) -> Result<String, BenchError> {
        serde_json::to_string(self).map_err(BenchError::failed("writing a figure"))
    }
}

fn judge(aim: Aim, number: f64) -> (Option<String>, Option<bool>) {
    match aim {
        Aim::AtMost(most) => (Some(format!("<= {most}")), Some(number <= most)),
        Aim::AtLeast(least) => (Some(format!(">= {least}")), Some(number >= least)),
        Aim::None => (None, None),
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let holds = match self.holds {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        let (yardstick, aim) = (self.yardstick.unwrap_or_default(), self.aim.as_deref().unwrap_or_default());
        write!(
            f,
            "{:<40} {:>12.3}  {:<14} {ratio:>8}  {yardstick:<9}  {aim:<9}  {holds:<5}",
            self.name, self.value, self.unit
        )?;
        self.note.as_ref().map_or(Ok(()), |note| write!(f, "\n    {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aim_is_judged_by_the_ratio_where_there_is_one() {
        let held = Figure::ratio("a", 100.0, "us", 1.5, "U", Aim::AtMost(1.6));
        let missed = Figure::ratio("a", 100.0, "us", 0.4, "H", Aim::AtLeast(0.5));
        assert_eq!((held.holds, missed.holds), (Some(true), Some(false)));
        assert_eq!(Figure::value("a", 3.0, "s", Aim::AtMost(5.0)).holds, Some(true));
    }

    #[test]
    fn an_object_has_the_names_that_scripts_rely_on() {
        let json = Figure::ratio("a", 1.0, "us", 1.0, "U", Aim::AtMost(1.6)).to_json().expect("json");
        let object: serde_json::Value = serde_json::from_str(&json).expect("json");
        for name in ["name", "ratio", "yardstick", "aim", "holds", "value", "unit"] {
            assert!(object.get(name).is_some(), "{name}");
        }
    }
}
