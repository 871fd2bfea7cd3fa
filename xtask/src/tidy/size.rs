//! Files and functions stay small enough to be read at once.

use super::Finding;
use super::tree::Tree;

/// A file that one can still hold in mind; aim at 500.
pub(super) const FILE_LINES_MAX: usize = 800;

/// A function that fits on a screen, from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// A function that may be longer, up to its own number.
struct LongFunction {
    path: &'static str,
    name: &'static str,
    lines: usize,
    /// Why it is better in one piece. Read by people only.
    _reason: &'static str,
}

/// May only shrink: a function that fits again, or is gone, is a finding here.
const LONG_FUNCTIONS: &[LongFunction] = &[];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    files(tree, findings);
    functions(tree, LONG_FUNCTIONS, findings);
}

fn files(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in &tree.files {
        let lines = file.text.lines().count();
        if is_code(&file.path) && lines > FILE_LINES_MAX {
            let text =
                format!("{lines} lines, at most {FILE_LINES_MAX}; split it where its header needs an `and`");
            findings.push(Finding::new(&file.path, FILE_LINES_MAX + 1, text));
        }
    }
}

fn is_code(path: &str) -> bool {
    [".rs", ".py", ".sh", "/run"]
        .iter()
        .any(|end| path.ends_with(end))
}

fn functions(tree: &Tree, exceptions: &[LongFunction], findings: &mut Vec<Finding>) {
    let mut used = vec![false; exceptions.len()];
    for (file, rust) in tree.rust() {
        for function in rust.functions() {
            let exception = exceptions
                .iter()
                .position(|e| e.path == file.path && e.name == function.name);
            let max = exception.map_or(FUNCTION_LINES_MAX, |index| exceptions[index].lines);
            if function.lines > max {
                let text = format!(
                    "`{}` has {} lines, at most {max}; give a part of it a name of its own",
                    function.name, function.lines
                );
                findings.push(Finding::new(&file.path, function.line, text));
            }
            if let Some(index) = exception {
                used[index] |= function.lines > FUNCTION_LINES_MAX;
            }
        }
    }
    for (exception, _) in exceptions.iter().zip(used).filter(|(_, used)| !used) {
        let text = format!(
            "`{}` needs no exception any more; take it out of LONG_FUNCTIONS",
            exception.name
        );
        findings.push(Finding::new(exception.path, 1, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        format!("\nfn long() {{{}}}\n", "\n".repeat(lines - 1))
    }

    fn long_functions(text: &str, exceptions: &[LongFunction]) -> Vec<Finding> {
        let mut findings = Vec::new();
        functions(&Tree::of(&[("a.rs", text)]), exceptions, &mut findings);
        findings
    }

    #[test]
    fn a_file_may_have_800_lines_and_no_more() {
        let mut findings = Vec::new();
        let (fits, long) = ("x\n".repeat(800), "x\n".repeat(801));
        files(
            &Tree::of(&[("a.rs", &fits), ("Cargo.lock", &long)]),
            &mut findings,
        );
        assert_eq!(findings, []);
        files(
            &Tree::of(&[("a.rs", &long), ("b.py", &long), (".ci/run", &long)]),
            &mut findings,
        );
        assert_eq!(findings.len(), 3, "{findings:?}");
    }

    #[test]
    fn a_function_may_have_70_lines_and_no_more() {
        assert_eq!(long_functions(&function(70), &[]), []);
        let findings = long_functions(&function(71), &[]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 2);
    }

    #[test]
    fn an_exception_holds_up_to_its_number_and_only_while_it_is_needed() {
        let exception = [LongFunction {
            path: "a.rs",
            name: "long",
            lines: 90,
            _reason: "",
        }];
        assert_eq!(long_functions(&function(90), &exception), []);
        assert_eq!(long_functions(&function(91), &exception).len(), 1);
        assert!(
            long_functions(&function(70), &exception)[0]
                .text
                .contains("no exception")
        );
        assert!(long_functions("", &exception)[0].text.contains("no exception"));
    }
}
