//! The grammar of `.env` files of vlucas/phpdotenv 5.6, which Laravel uses.
//!
//! The rules are exactly those of that library. `phpdotenv.json` in this directory has files and the values that the
//! library read from them. The library refuses a whole file because of one invalid entry. This parser skips the first
//! line of that entry.

use std::borrow::Cow;
use std::fmt;

/// An assignment. Without a `template`, it is a name alone, which unsets the variable.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) template: Option<Template>,
}

/// An entry that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The number of the entry's first line, counted from 1.
    pub(super) line: usize,
    /// The variable that the line seems to set. It may be empty.
    pub(super) name: String,
    pub(super) problem: Problem,
}

/// The reason why an entry cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Nothing precedes the equals sign.
    NoName,
    /// The name has other characters than letters, digits, underscores and dots.
    Name,
    /// Something follows the value.
    Whitespace,
    /// A backslash between double quotes precedes a character that it cannot escape.
    Escape,
    /// The closing quote is missing.
    Quote,
    /// A double quote opens a value and no later line closes it.
    OpenToEnd,
}

/// A value before its `${NAME}` references are replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    text: String,
    /// Where in `text` a dollar sign may start a reference, in ascending order.
    dollars: Vec<usize>,
}

/// The characters that `trim` of PHP removes.
const TRIMMED: [char; 6] = [' ', '\t', '\n', '\r', '\0', '\x0b'];

/// The maximum length of a whitespace token in the lexer of the library.
const WHITESPACE_TOKEN_MAX: usize = 1000;

/// Converts the bytes of a file to text like the library. Invalid bytes become question marks, and one byte order mark
/// is removed.
pub(super) fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push('?');
        }
    }
    match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

/// Reads the entries of a file in their order.
pub(super) fn parse(text: &str) -> Vec<Result<Entry, Broken>> {
    let lines = lines(text);
    let closings = closings(&lines);
    let mut entries = Vec::new();
    let mut index = 0;
    while let Some(line) = lines.get(index) {
        let broken = |problem| Broken { line: index + 1, name: probable_name(line), problem };
        let (raw, next) = if !opens_lines(line) {
            (Cow::Borrowed(*line), index + 1)
        } else if let Some(closing) = closings.get(index + 1).copied().flatten() {
            (Cow::Owned(lines[index..=closing].join("\n")), closing + 1)
        } else {
            // The library drops this line and all lines after it without an error.
            entries.push(Err(broken(Problem::OpenToEnd)));
            index += 1;
            continue;
        };
        if is_comment_or_blank(&raw) {
            index = next;
            continue;
        }
        match parse_entry(&raw) {
            Ok(entry) => {
                entries.push(Ok(entry));
                index = next;
            }
            Err(problem) => {
                // The quote was meant to be closed on this line, and another line closes it by accident.
                let is_open = problem == Problem::Whitespace && next > index + 1;
                entries.push(Err(broken(if is_open { Problem::Quote } else { problem })));
                index += 1;
            }
        }
    }
    entries
}

/// Splits at `\r\n`, `\n` and `\r`.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\r', '\n']) {
        lines.push(&rest[..end]);
        let length = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + length..];
    }
    lines.push(rest);
    lines
}

/// Returns for each line the index of the next line that ends a value of several lines, starting with the line itself.
/// A line that opens such a value does not end one.
fn closings(lines: &[&str]) -> Vec<Option<usize>> {
    let mut closings = vec![None; lines.len()];
    let mut next = None;
    for (index, line) in lines.iter().enumerate().rev() {
        if *line == "\"" || (closing_quotes(line) > 0 && !opens_lines(line)) {
            next = Some(index);
        }
        closings[index] = next;
    }
    closings
}

/// Returns whether the line starts a value of several lines.
fn opens_lines(line: &str) -> bool {
    line.contains("=\"") && closing_quotes(line) <= 1
}

/// Returns the number of double quotes that are neither the first character nor behind a lone backslash.
fn closing_quotes(line: &str) -> usize {
    let line = line.replace("\\\\", "");
    line.as_bytes().windows(2).filter(|pair| pair[0] != b'\\' && pair[1] == b'"').count()
}

fn is_comment_or_blank(entry: &str) -> bool {
    let entry = entry.trim_matches(TRIMMED);
    entry.is_empty() || entry.starts_with('#')
}

fn parse_entry(entry: &str) -> Result<Entry, Problem> {
    let (name, value) = match entry.split_once('=') {
        Some((name, value)) => (name.trim_matches(TRIMMED), Some(value.trim_matches(TRIMMED))),
        None => (entry, None),
    };
    let name = parse_name(name)?.to_owned();
    let template = value.map(parse_value).transpose()?;
    Ok(Entry { name, template })
}

fn parse_name(name: &str) -> Result<&str, Problem> {
    if name.is_empty() {
        return Err(Problem::NoName);
    }
    let name = match name.strip_prefix("export") {
        // The library requires more than eight characters, so `export A` is not recognized.
        Some(rest) if name.chars().count() > 8 && rest.starts_with(is_space) => rest.trim_start_matches(TRIMMED),
        _ => name,
    };
    let quoted = ['"', '\''].into_iter().find_map(|quote| name.strip_prefix(quote)?.strip_suffix(quote));
    let name = quoted.filter(|quoted| !quoted.is_empty()).unwrap_or(name);
    let is_valid = |character: char| character.is_alphanumeric() || character == '_' || character == '.';
    if name.is_empty() || !name.chars().all(is_valid) { Err(Problem::Name) } else { Ok(name) }
}

/// Returns whether a character is whitespace for `ctype_space` and the regular expressions of PHP.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// The state of the parser in a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Unquoted,
    SingleQuoted,
    DoubleQuoted,
    Escape,
    /// Behind the value: only whitespace and a comment may follow.
    Behind,
}

fn parse_value(value: &str) -> Result<Template, Problem> {
    let mut template = Template::default();
    let mut state = State::Start;
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        state = match (state, character) {
            (State::Start | State::Unquoted | State::Behind, '#') => return Ok(template),
            (State::Start, '\'') => State::SingleQuoted,
            (State::Start, '"') => State::DoubleQuoted,
            (State::Start, space) if is_space(space) => {
                // A form feed is not trimmed. The library keeps it together with the whitespace that follows on its
                // line.
                template.text.push(space);
                let mut count = 1;
                let same = |next: &char| is_space(*next) && !matches!(next, '\r' | '\n');
                while count < WHITESPACE_TOKEN_MAX
                    && let Some(next) = characters.next_if(same)
                {
                    template.text.push(next);
                    count += 1;
                }
                State::Unquoted
            }
            (State::Unquoted, space) if is_space(space) => State::Behind,
            (State::Start | State::Unquoted, character) => template.push(character, State::Unquoted),
            (State::SingleQuoted, '\'') | (State::DoubleQuoted, '"') => State::Behind,
            (State::SingleQuoted, character) => {
                template.text.push(character);
                State::SingleQuoted
            }
            (State::DoubleQuoted, '\\') => State::Escape,
            (State::DoubleQuoted, character) => template.push(character, State::DoubleQuoted),
            (State::Escape, character) => {
                template.text.push(unescape(character)?);
                State::DoubleQuoted
            }
            (State::Behind, space) if is_space(space) => State::Behind,
            (State::Behind, _) => return Err(Problem::Whitespace),
        };
    }
    match state {
        State::SingleQuoted | State::DoubleQuoted | State::Escape => Err(Problem::Quote),
        State::Start | State::Unquoted | State::Behind => Ok(template),
    }
}

/// Returns the character that a backslash before `character` means between double quotes.
fn unescape(character: char) -> Result<char, Problem> {
    match character {
        '"' | '\\' | '$' => Ok(character),
        'f' => Ok('\x0c'),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        'v' => Ok('\x0b'),
        _ => Err(Problem::Escape),
    }
}

/// Returns the variable that an unreadable line seems to assign.
fn probable_name(line: &str) -> String {
    let line = line.trim_start();
    let line = line.strip_prefix("export").filter(|rest| rest.starts_with(is_space)).unwrap_or(line);
    let line = line.trim_start().trim_start_matches(['"', '\'']);
    line.chars().take_while(|character| character.is_ascii_alphanumeric() || *character == '_').collect()
}

// === impl Template ===

impl Template {
    fn push(&mut self, character: char, state: State) -> State {
        if character == '$' {
            self.dollars.push(self.text.len());
        }
        self.text.push(character);
        state
    }

    /// Replaces references, the last one first. A value can therefore complete the name of an earlier reference.
    pub(super) fn resolve<'a>(&self, variable: impl Fn(&str) -> Option<&'a str>) -> String {
        let mut text = self.text.clone();
        for &start in self.dollars.iter().rev() {
            let Some(name) = reference(&text[start..]) else { continue };
            if let Some(value) = variable(name) {
                let end = start + "${}".len() + name.len();
                text.replace_range(start..end, value);
            }
        }
        text
    }
}

/// Returns the name in the `${NAME}` at the beginning of a text.
fn reference(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix("${")?.split_once('}')?;
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    (!name.is_empty() && name.bytes().all(is_valid)).then_some(name)
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoName => "expected a name before the equals sign",
            Self::Name => "expected a name of letters, digits and underscores, alone or before an equals sign",
            Self::Whitespace => "expected nothing after the value; a value with spaces needs quotes around all of it",
            Self::Escape => {
                r#"expected \\, \", \$, \n, \r, \t, \f or \v after a backslash; single quotes keep every character"#
            }
            Self::Quote | Self::OpenToEnd => "expected a closing quote",
        })
    }
}
