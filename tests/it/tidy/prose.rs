//! Splits comments and documents into sentences.

use std::path::Path;

use super::files::has_extension;

/// A sentence, or the part of one up to a colon or semicolon.
#[derive(Debug)]
pub(super) struct Sentence {
    /// The line on which its paragraph begins, from 1 on.
    pub line: usize,
    /// The number of words.
    pub words: usize,
    /// The first words.
    pub start: String,
}

/// Returns the sentences of a file's comments, or of its text if it is Markdown. Skips tables and blocks of code.
pub(super) fn sentences(file: &Path, text: &str) -> Vec<Sentence> {
    let is_markdown = has_extension(file, &["md"]);
    let mut found = Vec::new();
    let mut paragraph: Option<(usize, String)> = None;
    let mut is_code = false;
    for (index, line) in text.lines().enumerate() {
        let prose = if is_markdown { Some(line) } else { comment(line) };
        if prose.is_some_and(|prose| prose.trim_start().starts_with("```")) {
            is_code = !is_code;
        }
        let prose = prose.filter(|prose| !is_code && !ends_paragraph(prose));
        let (item, prose) = list_item(prose.unwrap_or_default());
        if item || prose.is_empty() {
            flush(&mut paragraph, &mut found);
        }
        if !prose.is_empty() {
            let (_, text) = paragraph.get_or_insert((index + 1, String::new()));
            text.push(' ');
            text.push_str(prose);
        }
    }
    flush(&mut paragraph, &mut found);
    found
}

/// Returns the text of a line that is a comment.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let marks = ["///", "//!", "//", "--", "#", "*"];
    let text = marks.iter().find_map(|mark| line.strip_prefix(mark))?;
    (text.is_empty() || text.starts_with(' ')).then_some(text)
}

/// Whether a line of prose is empty, a heading, a row of a table, or code.
fn ends_paragraph(prose: &str) -> bool {
    let trimmed = prose.trim();
    trimmed.is_empty()
        || prose.starts_with("     ")
        || ["#", "|", "```", "<"].iter().any(|mark| trimmed.starts_with(mark))
}

/// Splits the mark off an item of a list. Returns whether there was one, and the text.
fn list_item(prose: &str) -> (bool, &str) {
    let prose = prose.trim();
    let unmarked = prose.strip_prefix("- ").or_else(|| prose.strip_prefix("* ")).or_else(|| {
        let (number, rest) = prose.split_once(". ")?;
        number.bytes().all(|byte| byte.is_ascii_digit()).then_some(rest)
    });
    (unmarked.is_some(), unmarked.unwrap_or(prose).trim())
}

/// Ends a paragraph and appends its sentences.
fn flush(paragraph: &mut Option<(usize, String)>, found: &mut Vec<Sentence>) {
    const START_WORDS: usize = 12;
    let Some((line, text)) = paragraph.take() else { return };
    let words: Vec<&str> = text.split_whitespace().collect();
    for words in words
        .split_inclusive(|word| word.trim_end_matches(['"', '\'', ')', '`', '*']).ends_with(['.', '!', '?', ':', ';']))
    {
        let start = words.iter().take(START_WORDS).copied().collect::<Vec<_>>().join(" ");
        found.push(Sentence { line, words: words.len(), start });
    }
}
