//! A Rust file, read just far enough: comments and literals blanked, test code and functions found.
//!
//! No parser: a few scans over the bytes. What they do not know (macros that make items, braces in const
//! generics) does not occur here, and would show as a wrong line number, not as a silent pass.

use std::ops::Range;

/// What tidy knows of a Rust file.
pub(super) struct Rust {
    /// The text with comments and literals replaced by spaces: same bytes, same lines.
    pub(super) code: String,
    /// Whether the whole file is test code.
    pub(super) all_tests: bool,
    /// Modules in files of their own that are declared for tests only.
    pub(super) test_modules: Vec<String>,
    /// Test code inside the file.
    tests: Vec<Range<usize>>,
    /// Bodies of inline modules.
    modules: Vec<Range<usize>>,
    /// Where each line starts.
    lines: Vec<usize>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// Its first line, from 1.
    pub(super) line: usize,
    /// How many lines it takes, signature and braces included.
    pub(super) lines: usize,
}

impl Rust {
    pub(super) fn new(text: &str) -> Self {
        let code = blank(text);
        let mut lines = vec![0];
        lines.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        let mut rust = Self {
            code,
            all_tests: false,
            test_modules: Vec::new(),
            tests: Vec::new(),
            modules: Vec::new(),
            lines,
        };
        rust.find_tests(text);
        rust.find_modules();
        rust
    }

    /// The line of a byte offset, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|&start| start <= at)
    }

    /// Whether the code at this offset exists only for tests.
    pub(super) fn is_test(&self, at: usize) -> bool {
        self.all_tests || self.tests.iter().any(|range| range.contains(&at))
    }

    /// How many inline modules are around this offset.
    pub(super) fn inline_depth(&self, at: usize) -> usize {
        self.modules.iter().filter(|range| range.contains(&at)).count()
    }

    /// The functions that have a body.
    pub(super) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for at in words(&self.code, "fn") {
            let rest = &self.code[at + 2..];
            let name = identifier(rest.trim_start());
            if name.is_empty() {
                continue;
            }
            if let End::Block(block) = item_end(&self.code, at) {
                let line = self.line(at);
                let lines = self.line(block.end - 1) - line + 1;
                functions.push(Function {
                    name: name.to_owned(),
                    line,
                    lines,
                });
            }
        }
        functions
    }

    fn find_tests(&mut self, text: &str) {
        let starts: Vec<usize> = self.code.match_indices("#[").map(|(at, _)| at).collect();
        for at in starts {
            let end = attribute_end(&self.code, at);
            if is_test_attribute(&text[at..end], &self.code[at..end]) {
                let item = self.skip_attributes(end);
                let range = match item_end(&self.code, item) {
                    End::Semicolon(end) => {
                        self.test_modules
                            .extend(module_name(&self.code[item..end]).map(str::to_owned));
                        at..end
                    }
                    End::Block(block) => at..block.end,
                };
                self.tests.push(range);
            }
        }
        for (at, _) in text.match_indices("#![cfg(") {
            let end = attribute_end(&self.code, at);
            self.all_tests |= is_test_attribute(&text[at..end].replacen('!', "", 1), &self.code[at..end]);
        }
    }

    fn find_modules(&mut self) {
        for at in words(&self.code, "mod") {
            if let End::Block(block) = item_end(&self.code, at) {
                self.modules.push(block);
            }
        }
    }

    fn skip_attributes(&self, from: usize) -> usize {
        let mut at = from;
        loop {
            at += self.code[at..].len() - self.code[at..].trim_start().len();
            if !self.code[at..].starts_with("#[") {
                return at;
            }
            at = attribute_end(&self.code, at);
        }
    }
}

/// The offsets of a word that stands alone.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].bytes().next_back();
        let after = code[at + word.len()..].bytes().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// The identifier that `code` starts with; empty if there is none.
pub(super) fn identifier(code: &str) -> &str {
    let end = code
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(code.len());
    if code.starts_with(|c: char| c.is_ascii_digit()) {
        ""
    } else {
        &code[..end]
    }
}

enum End {
    /// Just after the `;` that ends an item without a body.
    Semicolon(usize),
    /// The body, braces included.
    Block(Range<usize>),
}

/// Where the item that starts at `from` ends.
fn item_end(code: &str, from: usize) -> End {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => return End::Semicolon(offset + 1),
            b'{' if depth == 0 => return End::Block(offset..block_end(code, offset)),
            _ => {}
        }
    }
    End::Semicolon(code.len())
}

/// Just after the brace that closes the one at `open`.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return offset + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Just after the bracket that closes the attribute at `from`.
fn attribute_end(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'[' => depth += 1,
            b']' if depth == 1 => return offset + 1,
            b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    code.len()
}

/// `#[test]`, `#[tokio::test(...)]`, `#[cfg(test)]`, `#[cfg(any(test, feature = "test-util"))]`.
fn is_test_attribute(text: &str, code: &str) -> bool {
    let path = text
        .trim_start_matches("#[")
        .split(['(', ']'])
        .next()
        .unwrap_or("")
        .trim();
    if path == "cfg" {
        let for_tests = words(code, "test").next().is_some() || text.contains("\"test-util\"");
        return for_tests && words(code, "not").next().is_none();
    }
    path == "test" || path.ends_with("::test")
}

fn module_name(item: &str) -> Option<&str> {
    let at = words(item, "mod").next()?;
    Some(identifier(item[at + 3..].trim_start()))
}

/// Replaces comments and the contents of literals by spaces.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    while code.len() < bytes.len() {
        let at = code.len();
        match literal_end(text, at) {
            Some(end) => code.extend(bytes[at..end].iter().map(|&b| if b == b'\n' { b } else { b' ' })),
            None if bytes[at].is_ascii() => code.push(bytes[at]),
            None => code.push(b' '),
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Where the comment or literal that starts at `at` ends, if one does.
fn literal_end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Some(
            rest.iter()
                .position(|&b| b == b'\n')
                .map_or(bytes.len(), |length| at + length),
        );
    }
    if rest.starts_with(b"/*") {
        return Some(comment_end(bytes, at));
    }
    let starts_word = at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest[0] {
        b'"' => Some(quoted_end(bytes, at, b'"')),
        b'\'' => is_char(text, at).then(|| quoted_end(bytes, at, b'\'')),
        b'r' | b'b' | b'c' if starts_word => raw_end(bytes, at),
        _ => None,
    }
}

fn comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut offset = at;
    while offset < bytes.len() {
        if bytes[offset..].starts_with(b"/*") {
            depth += 1;
            offset += 2;
        } else if bytes[offset..].starts_with(b"*/") {
            depth -= 1;
            offset += 2;
            if depth == 0 {
                return offset;
            }
        } else {
            offset += 1;
        }
    }
    bytes.len()
}

fn quoted_end(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut offset = at + 1;
    while offset < bytes.len() {
        match bytes[offset] {
            b'\\' => offset += 2,
            byte if byte == quote => return offset + 1,
            _ => offset += 1,
        }
    }
    bytes.len()
}

/// A quote that opens a character, not a lifetime.
fn is_char(text: &str, at: usize) -> bool {
    let mut rest = text[at + 1..].chars();
    match rest.next() {
        Some('\\') => true,
        Some(_) => rest.next() == Some('\''),
        None => false,
    }
}

/// The end of a raw string, with its prefix; `b"` and `c"` are left to the quote itself.
fn raw_end(bytes: &[u8], at: usize) -> Option<usize> {
    let letters = bytes[at..]
        .iter()
        .take_while(|b| matches!(b, b'r' | b'b' | b'c'))
        .count();
    if letters > 2 || bytes[at + letters - 1] != b'r' {
        return None;
    }
    let hashes = bytes[at + letters..].iter().take_while(|&&b| b == b'#').count();
    let open = at + letters + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let length = bytes[open + 1..]
        .windows(close.len())
        .position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| open + 1 + length + close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_nothing_moves() {
        let text = "a /* x /* y */ z */ b // c\n\"d\\\"e\" 'f' '\\'' 'g: &'h r#\"i\"j\"# b\"k\" br\"l\" m";
        let code = blank(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(
            code.split_whitespace().collect::<Vec<_>>(),
            ["a", "b", "'g:", "&'h", "b", "m"]
        );
        assert_eq!(code.find('\n'), text.find('\n'));
        assert_eq!(blank("\"\u{e9}\" \u{e9} x").len(), "\"\u{e9}\" \u{e9} x".len());
    }

    #[test]
    fn an_unclosed_literal_ends_with_the_file() {
        for text in ["\"abc", "/* abc", "r#\"abc\"", "'\\", "// abc"] {
            assert_eq!(blank(text).trim(), "", "{text}");
        }
    }

    #[test]
    fn test_code_is_told_from_the_rest() {
        let text = "fn a() { 1 }\n#[cfg(test)]\n#[rustfmt::skip]\nmod tests { fn b() { 2 } }\nfn c() { 3 }\n\
                    #[tokio::test(flavor = \"x\")]\nasync fn d() { 4 }\n#[cfg(not(test))] fn e() { 5 }\n\
                    #[cfg(any(test, feature = \"test-util\"))] fn f() { 6 }\n#[cfg(feature = \"test-util\")]\n\
                    fn g() { 7 }";
        let rust = Rust::new(text);
        let is_test = |digit: &str| rust.is_test(text.find(digit).unwrap());
        assert_eq!(["1", "3", "5"].map(is_test), [false; 3]);
        assert_eq!(["2", "4", "6", "7"].map(is_test), [true; 4]);
        assert!(Rust::new("#![cfg(test)]\nfn a() {}").all_tests);
        assert!(!Rust::new("#![cfg(unix)]\nfn a() {}").all_tests);
    }

    #[test]
    fn functions_have_their_lines_counted_from_signature_to_brace() {
        let text = "trait T { fn none(&self) -> [u8; 4]; }\n\nfn one() {}\nfn three(\n) -> [u8; 4] { {\n} }\n\
                    type F = fn(u8) -> u8;\n";
        let found = Rust::new(text).functions();
        let expected = [("one", 3, 1), ("three", 4, 3)];
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn inline_modules_are_counted() {
        let text = "1 mod a { 2 mod b { 3 } } mod c; 4";
        let rust = Rust::new(text);
        let depth = |digit: &str| rust.inline_depth(text.find(digit).unwrap());
        assert_eq!(["1", "2", "3", "4"].map(depth), [0, 1, 2, 0]);
    }
}
