//! Arguments that do not parse, as they are told: clap's own text for people, a [`Failure`] for programs.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use super::failure::Failure;
use crate::config::version;

/// Commands of later versions.
const LATER: &[&[&str]] = &[&["job", "ls"], &["job", "cancel"], &["dead"], &["new"]];

/// Whether `--json` is among the arguments. They did not parse: nobody else can say it.
pub(super) fn asks_for_json(arguments: impl IntoIterator<Item = OsString>) -> bool {
    arguments
        .into_iter()
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json")
}

/// What is said of a command that a later version has.
pub(super) fn of_a_later_version(
    error: &Error,
    arguments: impl IntoIterator<Item = OsString>,
) -> Option<Failure> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let arguments: Vec<_> = arguments.into_iter().collect();
    let (command, _) = LATER
        .iter()
        .filter_map(|command| Some((command, command.split_last()?)))
        .find(|(_, (last, group))| {
            *last == unknown
                && group
                    .iter()
                    .all(|name| arguments.iter().any(|argument| argument == name))
        })?;
    let message = format!("`jitney {}` is not in jitney {}", command.join(" "), version());
    Some(Failure::usage(message))
}

/// What is wrong, and clap's tips for it. `rendered` is clap's text, in paragraphs: the message, tips, usage.
pub(super) fn failure(error: &Error) -> Failure {
    // Its text would be all of the help, or name hidden commands too.
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
    ) {
        return Failure::usage("a command is missing").hint("--help lists them");
    }
    let rendered = error.render().to_string();
    let mut paragraphs = rendered.split("\n\n");
    let message = paragraphs.next().unwrap_or_default().trim_end();
    let failure = Failure::usage(message.strip_prefix("error: ").unwrap_or(message));
    let tips: Vec<_> = paragraphs
        .flat_map(str::lines)
        .filter_map(|line| line.trim_start().strip_prefix("tip: "))
        .collect();
    match tips.is_empty() {
        true => failure,
        false => failure.hint(tips.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_two_dashes_is_data() {
        let asks = |arguments: &[&str]| asks_for_json(arguments.iter().map(OsString::from));
        assert!(asks(&["jitney", "submit", "--json"]));
        assert!(!asks(&["jitney", "submit", "p", "--", "--json"]));
    }

    #[test]
    fn tips_are_the_hint() {
        let command = clap::Command::new("x").arg(clap::Arg::new("priority").long("priority"));
        let error = command
            .try_get_matches_from(["x", "--prioritty", "1"])
            .unwrap_err();
        let failure = failure(&error);
        assert_eq!(failure.message, "unexpected argument '--prioritty' found");
        assert_eq!(
            failure.hint.as_deref(),
            Some("a similar argument exists: '--priority'")
        );
    }
}
