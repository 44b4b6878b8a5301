//! Seconds since 1970 as people read them.

use chrono::DateTime;

/// `2025-01-02 03:04 UTC`; seconds beyond the calendar as they are.
pub fn utc(seconds_since_1970: u64) -> String {
    let date = i64::try_from(seconds_since_1970).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    date.map_or_else(|| seconds_since_1970.to_string(), |date| date.format("%Y-%m-%d %H:%M UTC").to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_those_of_the_date_command() {
        let dates = [0, 951_782_400, 1_735_787_045, 4_107_542_399].map(super::utc);
        let expected = ["1970-01-01 00:00 UTC", "2000-02-29 00:00 UTC", "2025-01-02 03:04 UTC", "2100-02-28 23:59 UTC"];
        assert_eq!(dates, expected);
        assert_eq!(super::utc(u64::MAX), u64::MAX.to_string());
    }
}
