//! Points in time and durations as text; UTC only, no time zone data needed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, as in `2026-11-23T10:32:37Z`. Sorts as text.
pub fn utc_now() -> String {
    format_utc(unix_seconds())
}

/// Seconds since 1970 as UTC text, as in `1970-01-01T00:00:00Z`.
pub fn format_utc(unix_seconds: u64) -> String {
    let (day, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil_from_days(day);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Seconds since 1970 of a text as [`format_utc`] writes it; `None` for any other.
pub fn parse_utc(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // Counted from March on, a leap day is the last one of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = (365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day).checked_sub(719_469)?;
    let seconds = days * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    (format_utc(seconds) == text).then_some(seconds)
}

/// A duration for people: `0.2 s`, `48 s`, `2 min 40 s`, `3 h 05 min`, `2 d 03 h`.
pub fn format_duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".into();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {:02} h", whole / 86_400, whole / 3600 % 24),
    }
}

pub(crate) fn unix_seconds() -> u64 {
    since_1970().as_secs()
}

pub(crate) fn unix_time() -> f64 {
    since_1970().as_secs_f64()
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Days since 1970 to year, month, day of the Gregorian calendar (the era algorithm of H. Hinnant).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_right() {
        assert_eq!(format_utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(format_utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(format_utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(format_utc(1_795_429_957), "2026-11-23T10:32:37Z");
    }

    #[test]
    fn times_are_read_back_and_nothing_else_is() {
        for seconds in [0, 951_782_399, 951_782_400, 1_795_429_957] {
            assert_eq!(parse_utc(&format_utc(seconds)), Some(seconds));
        }
        for other in ["", "2026-11-23", "2026-13-23T10:32:37Z", "2026-11-23T10:32:37+", "0000-00-00T00:00:00Z", "ä"] {
            assert_eq!(parse_utc(other), None, "{other}");
        }
    }

    #[test]
    fn durations_read_naturally() {
        assert_eq!(format_duration(0.21), "0.2 s");
        assert_eq!(format_duration(48.4), "48 s");
        assert_eq!(format_duration(160.0), "2 min 40 s");
        assert_eq!(format_duration(11_100.0), "3 h 05 min");
        assert_eq!(format_duration(183_600.0), "2 d 03 h");
        assert_eq!(format_duration(f64::NAN), "unknown");
    }
}
