//! "Did you mean": which known word was probably meant by an unknown one.

/// The known word that was probably meant, if one is near enough: at most a third of the longer word's letters are
/// wrong. Of two as near the first in the alphabet.
#[must_use]
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    let letters = written.chars().count();
    known
        .into_iter()
        .filter_map(|word| {
            let known = word.chars().count();
            let wrong_max = letters.max(known) / 3;
            // Each letter too many is a wrong one: most words need no closer look.
            if letters.abs_diff(known) > wrong_max {
                return None;
            }
            let wrong = strsim::damerau_levenshtein(&written, &word.to_ascii_lowercase());
            (wrong <= wrong_max).then_some((wrong, word))
        })
        .min()
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_found_and_a_far_one_is_not() {
        let known = ["processor", "group", "priority", "key"];
        assert_eq!(nearest("procesor", known), Some("processor"));
        assert_eq!(nearest("Proirity", known), Some("priority"));
        assert_eq!(nearest("kye", known), Some("key"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn short_names_that_share_nothing_are_not_near() {
        for (written, known, near) in [
            ("kt", "nd", false),
            ("b", "a", false),
            ("B", "b", true),
            ("order", "orders", true),
            ("paymnets", "payments", true),
            ("mail", "order", false),
        ] {
            assert_eq!(nearest(written, [known]).is_some(), near, "{written} {known}");
        }
        assert_eq!(nearest("orderz", ["orders", "ordera"]), Some("ordera"));
    }
}
