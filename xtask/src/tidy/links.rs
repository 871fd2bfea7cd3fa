//! A relative link in a Markdown page leads to a file of the repository, and to a heading that is there.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::Finding;
use super::tree::Tree;

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let pages: BTreeMap<&str, BTreeSet<String>> = tree
        .files
        .iter()
        .filter(|file| file.path.ends_with(".md"))
        .map(|file| (file.path.as_str(), anchors(&file.text)))
        .collect();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in links(&file.text) {
            if let Some(text) = broken(tree, &pages, &file.path, &target) {
                findings.push(Finding::new(&file.path, line, text));
            }
        }
    }
}

fn broken(tree: &Tree, pages: &BTreeMap<&str, BTreeSet<String>>, page: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() {
        Some(page.to_owned())
    } else {
        resolve(page, path)
    };
    let Some(path) = path else {
        return Some(format!(
            "the link `{target}` leads out of the repository; make it relative to this page"
        ));
    };
    let folder = format!("{}/", path.trim_end_matches('/'));
    let exists = tree.paths.contains(&path) || tree.paths.iter().any(|other| other.starts_with(&folder));
    if !exists {
        return Some(format!(
            "the link `{target}` leads to no file; mend the path, or write the page"
        ));
    }
    let known = pages
        .get(path.as_str())
        .is_none_or(|anchors| anchors.contains(anchor));
    (!anchor.is_empty() && !known)
        .then(|| format!("the link `{target}` leads to no heading of `{path}`; mend it"))
}

/// `path` as seen from `page`, from the root; `None` if it is absolute or leaves the repository.
fn resolve(page: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The targets of all links outside of code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let end = rest.find([')', ' ']).unwrap_or(rest.len());
            found.push((number, rest[..end].to_owned()));
        }
        // A reference: `[name]: target`.
        if let Some((_, target)) = line
            .trim_start()
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "))
        {
            found.push((
                number,
                target.split_whitespace().next().unwrap_or_default().to_owned(),
            ));
        }
    }
    found
}

/// The anchors of a page's headings, made as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept
            .flat_map(char::to_lowercase)
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let mut name = anchor.clone();
        let mut again = 0;
        while !anchors.insert(name) {
            again += 1;
            name = format!("{anchor}-{again}");
        }
    }
    anchors
}

/// The lines that are not in a fenced block, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// The line without its `code`.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let tree = Tree::of(&[
            ("docs/page.md", text),
            (
                "docs/other.md",
                "# The title\n## The title\n### `code`, and: more\n```\n# no heading\n```\n",
            ),
            ("crates/a/src/lib.rs", ""),
        ]);
        let mut findings = Vec::new();
        check(&tree, &mut findings);
        findings.into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let text = "[a](other.md) [b](./other.md#the-title) ![c](../crates/a) [d](../crates/a/src/lib.rs \"title\")\n\
                    [e](https://example.org/x) [f](mailto:a@b.c) [g](#here) `[h](gone.md)`\n# Here\n\
                    ```\n[i](gone.md)\n```\n[j]: other.md\n[k](other.md#the-title-1) [l](other.md#code-and-more)\n";
        assert_eq!(findings(text), [""; 0]);
    }

    #[test]
    fn links_that_lead_nowhere_are_found_at_their_line() {
        for (text, why) in [
            (
                "\n[a](gone.md)",
                "docs/page.md:2: the link `gone.md` leads to no file",
            ),
            ("\n[a](../../x.md)", "out of the repository"),
            ("\n[a](/docs/other.md)", "out of the repository"),
            ("\n[a]: gone.md", "leads to no file"),
            ("\n[a](other.md#no-heading)", "leads to no heading"),
            ("\n[a](#gone)", "leads to no heading"),
            ("\n[a](../crates/a/sr)", "leads to no file"),
        ] {
            let findings = findings(text);
            assert_eq!(findings.len(), 1, "{text}: {findings:?}");
            assert!(findings[0].contains(why), "{findings:?}");
        }
    }
}
