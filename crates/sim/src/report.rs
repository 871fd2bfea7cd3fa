//! What a person reads: the one place that prints.

/// Prints one line.
#[expect(
    clippy::print_stdout,
    reason = "the simulator is a command, and this is its one way to speak"
)]
pub(crate) fn line(text: &str) {
    println!("{text}");
}
