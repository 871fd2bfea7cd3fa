//! "Did you mean": which known word was probably meant by an unknown one.

/// The known word that was probably meant, if one is near enough: at most a third of its letters are wrong.
#[must_use]
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    known
        .into_iter()
        .map(|word| {
            let distance = strsim::damerau_levenshtein(&written, &word.to_ascii_lowercase());
            (distance, word)
        })
        .filter(|(distance, word)| *distance <= word.len().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
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
}
