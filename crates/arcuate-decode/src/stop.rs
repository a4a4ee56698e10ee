//! Stop strings: ends text where one appears, whatever the pieces in which the text comes.

/// Watches a text that comes in pieces for strings at which it shall end.
#[derive(Debug, Clone)]
pub struct StopFinder {
    stops: Vec<String>,
    /// Text that is not handed out yet, since it may be the beginning of a stop string.
    held: String,
    is_stopped: bool,
}

impl StopFinder {
    /// Ends before the first of `stops`; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, held: String::new(), is_stopped: false }
    }

    /// Takes the next piece and gives the text that is certain not to belong to a stop string.
    ///
    /// The stop string that is complete first ends the text; of two that end at the same place, the longer.
    pub fn push(&mut self, piece: &str) -> String {
        if self.is_stopped {
            return String::new();
        }
        self.held.push_str(piece);
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.len())));
        if let Some((start, _)) = found.min_by_key(|(start, len)| (start + len, *start)) {
            self.is_stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let num_held = self.stops.iter().map(|stop| beginning(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - num_held);
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether a stop string has appeared.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }
}

/// Length of the longest end of `text` with which `stop` begins.
fn beginning(text: &str, stop: &str) -> usize {
    let most = stop.len().saturating_sub(1).min(text.len());
    (1..=most).rev().find(|len| stop.as_bytes().starts_with(&text.as_bytes()[text.len() - len..])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut finder = StopFinder::new(&stops);
        let mut out: Vec<String> = pieces.iter().map(|piece| finder.push(piece)).collect();
        out.push(finder.finish());
        (out, finder.is_stopped())
    }

    #[test]
    fn a_stop_string_across_pieces_is_found_and_not_handed_out() {
        let (out, is_stopped) = run(&["END"], &["one E", "N", "D two", "three"]);
        assert_eq!((out.join("|").as_str(), is_stopped), ("one ||||", true));
    }

    #[test]
    fn a_false_beginning_is_handed_out_when_it_is_clear() {
        let (out, is_stopped) = run(&["END"], &["EN", "EN", "T"]);
        assert_eq!((out, is_stopped), (vec!["".into(), "EN".into(), "ENT".into(), "".into()], false));
    }

    #[test]
    fn what_is_held_at_the_end_comes_out() {
        let (out, is_stopped) = run(&["\n\nUser:"], &["Hi\n", "\nUs"]);
        assert_eq!((out.concat().as_str(), is_stopped), ("Hi\n\nUs", false));
    }

    #[test]
    fn without_stop_strings_nothing_is_held() {
        assert_eq!(run(&[""], &["a", "b"]), (vec!["a".into(), "b".into(), "".into()], false));
    }

    #[test]
    fn the_cut_into_pieces_changes_nothing() {
        let stops = ["aab", "ba", "é!", "!?x"];
        for text in ["aaaab", "xxbay", "cafée!é!z", "!!?y!?x", "aabba", "no"] {
            let whole = run(&stops, &[text]);
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let pieces: Vec<&str> = letters.iter().map(String::as_str).collect();
            let single = run(&stops, &pieces);
            assert_eq!((whole.0.concat(), whole.1), (single.0.concat(), single.1), "{text}");
        }
    }

    #[test]
    fn the_first_complete_stop_string_counts() {
        assert_eq!(run(&["b", "abc"], &["xabc"]).0.concat(), "xa");
        assert_eq!(run(&["c", "abc"], &["xabc"]).0.concat(), "x");
    }
}
