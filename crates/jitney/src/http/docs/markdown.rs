//! Markdown as HTML: as much of it as the page of errors uses.
//!
//! Headings, paragraphs, lists, `code`, and links to places that a browser can go to from here. The text is our own
//! and in the binary; it is escaped all the same.

/// A whole page.
pub(super) fn page(title: &str, markdown: &str) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<link rel=\"stylesheet\" href=\"/docs/style.css\">\n</head>\n<body>\n<main class=\"text\">\n",
        escaped(title)
    );
    for block in markdown
        .split("\n\n")
        .map(str::trim)
        .filter(|block| !block.is_empty())
    {
        html.push_str(&self::block(block));
        html.push('\n');
    }
    html.push_str("</main>\n<footer><a href=\"/docs\">the API</a></footer>\n</body>\n</html>\n");
    html
}

fn block(text: &str) -> String {
    if let Some(heading) = text.strip_prefix("## ") {
        let name = escaped(heading);
        return format!("<h2 id=\"{name}\"><a href=\"#{name}\">{name}</a></h2>");
    }
    if let Some(heading) = text.strip_prefix("# ") {
        return format!("<h1>{}</h1>", inline(heading));
    }
    let Some(list) = text.strip_prefix("- ") else {
        return format!("<p>{}</p>", inline(text));
    };
    let items = list
        .split("\n- ")
        .map(|item| format!("<li>{}</li>", inline(item)));
    format!("<ul>{}</ul>", items.collect::<String>())
}

/// Code between backticks; links and emphasis elsewhere.
fn inline(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for (at, part) in text.split('`').enumerate() {
        match at % 2 {
            0 => html.push_str(&links(part)),
            _ => html.push_str(&format!("<code>{}</code>", escaped(part))),
        }
    }
    html
}

fn links(text: &str) -> String {
    let mut html = String::new();
    let mut rest = text;
    while let Some((before, label, target, after)) = link(rest) {
        html.push_str(&escaped(before));
        html.push_str(&format!("<a href=\"{}\">{}</a>", escaped(target), escaped(label)));
        rest = after;
    }
    html.push_str(&escaped(rest));
    html
}

/// The first link: what comes before it, its label and target, and what follows.
fn link(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (head, rest) = text.split_once("](")?;
    let (target, after) = rest.split_once(')')?;
    let (before, label) = head.rsplit_once('[')?;
    Some((before, label, target, after))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_page_uses_is_html() {
        for (markdown, html) in [
            ("# A `b` & c", "<h1>A <code>b</code> &amp; c</h1>"),
            (
                "## name_of",
                "<h2 id=\"name_of\"><a href=\"#name_of\">name_of</a></h2>",
            ),
            (
                "one\ntwo <x> `a<b`",
                "<p>one\ntwo &lt;x&gt; <code>a&lt;b</code></p>",
            ),
            (
                "- a\n  more\n- `b`",
                "<ul><li>a\n  more</li><li><code>b</code></li></ul>",
            ),
            (
                "see [here](/docs), [there](#x)",
                "<p>see <a href=\"/docs\">here</a>, <a href=\"#x\">there</a></p>",
            ),
        ] {
            assert_eq!(block(markdown), html);
        }
    }

    /// A page written with what this file does not know would show its marks.
    #[test]
    fn the_page_of_errors_uses_nothing_else() {
        for block in super::super::ERRORS.split("\n\n") {
            let block = block.trim();
            let known = !block.starts_with(['|', '>', '*', '+'])
                && !block.starts_with("###")
                && !block.contains("```");
            assert!(known, "{block}");
            assert!(
                !block.starts_with('#') || !block.contains('\n'),
                "a heading stands alone: {block}"
            );
            assert_eq!(block.matches('`').count() % 2, 0, "{block}");
            for part in block.split("](").skip(1) {
                assert!(
                    part.starts_with(['#', '/', 'h']),
                    "a browser cannot follow `{part}` from /docs/errors"
                );
            }
        }
    }
}
