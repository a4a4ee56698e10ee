//! Tables for the terminal: columns as wide as their widest cell, numbers to the right.

use crate::numbers::printable;

/// Lays out rows under headers, with two spaces between columns. Cells that are missing are empty.
pub fn text_table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let num_columns = rows.iter().map(Vec::len).chain([headers.len()]).max().unwrap_or(0);
    let cells = |row: &[String]| -> Vec<String> {
        (0..num_columns).map(|column| row.get(column).map_or_else(String::new, |cell| printable(cell))).collect()
    };
    let headers: Vec<String> = headers.iter().map(|&header| header.to_owned()).collect();
    let body: Vec<Vec<String>> = rows.iter().map(|row| cells(row)).collect();
    let to_right: Vec<bool> = (0..num_columns)
        .map(|column| {
            let mut filled = body.iter().map(|row| row[column].as_str()).filter(|cell| !matches!(*cell, "" | "-"));
            body.iter().any(|row| !row[column].is_empty()) && filled.all(starts_like_a_number)
        })
        .collect();
    let all: Vec<Vec<String>> = std::iter::once(cells(&headers)).chain(body).collect();
    let widths: Vec<usize> =
        (0..num_columns).map(|column| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            let separator = if column == 0 { "" } else { "  " };
            line.push_str(separator);
            line.push_str(&if to_right[column] { padding + cell } else { cell.clone() + &padding });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Whether a cell is a number, perhaps with a unit: then its column is set to the right.
pub(crate) fn starts_like_a_number(cell: &str) -> bool {
    let bare = cell.trim_start_matches(['+', '-', '±', '~']);
    let is_word = |word: &str| ["NaN", "inf"].contains(&word);
    // Times and names such as `2026-11-23T…` or `3x-large` are not numbers.
    let number = bare.split([' ', '%']).next().unwrap_or("");
    is_word(number)
        || (number.starts_with(|c: char| c.is_ascii_digit())
            && number.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | 'e' | '-' | '/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let rows = [vec!["a".into(), "1.5".into(), "done".into()], vec!["long".into(), "-".into(), "failed".into()]];
        let expected = "run   loss  state\na      1.5  done\nlong     -  failed\n";
        assert_eq!(text_table(&["run", "loss", "state"], &rows), expected);
    }

    #[test]
    fn rows_of_different_length_and_letters_beyond_ascii_line_up() {
        let rows = [vec!["äö".into(), "x".into()], vec!["z".into()]];
        assert_eq!(text_table(&["n"], &rows), "n\näö  x\nz\n");
        assert_eq!(text_table(&[], &[]), "\n");
    }

    #[test]
    fn dates_are_not_numbers() {
        assert!(starts_like_a_number("+7.7 (6.4 to 9.0)") && starts_like_a_number("41.2 MB"));
        assert!(!starts_like_a_number("2026-11-23T10:00:00Z") && !starts_like_a_number("e5"));
    }
}
