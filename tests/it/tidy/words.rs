//! The prose of the project: words that it avoids, openings without a subject, and long sentences.
//!
//! `words.toml` has the lists. They apply to names in code too.

use std::fs;
use std::path::Path;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use tests::command::workspace;

use super::files::{files, has_extension};
use super::prose::sentences;

const LIST: &str = "tests/it/tidy/words.toml";

/// The longest sentence of a comment or a document, in words.
const SENTENCE_WORDS_MAX: usize = 30;

/// The extensions of the files that are checked.
const EXTENSIONS: [&str; 22] = [
    "acl", "conf", "css", "example", "html", "js", "json", "lua", "md", "mjs", "php", "py", "rs", "service", "sh",
    "socket", "template", "toml", "tpl", "txt", "yaml", "yml",
];

/// The files without an extension that are checked.
const NAMES: [&str; 3] = ["Dockerfile", "Makefile", "run"];

/// The content of `words.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    words: Vec<Word>,
    openings: Vec<String>,
    allowed: Vec<String>,
    pending: Vec<String>,
}

/// A word or phrase to avoid.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    pattern: String,
    instead: String,
}

/// The compiled lists.
struct Rules {
    /// Matches if any word matches. Most lines need no further check.
    any: Regex,
    words: Vec<(Regex, String)>,
    /// Matches a comment that opens with one of the words.
    opening: Regex,
    /// Matches a sentence that opens with one of the words.
    sentence_opening: Regex,
    lists: Lists,
    boundary: Regex,
}

impl Rules {
    fn new(lists: Lists) -> Self {
        let whole = |pattern: &str| ascii(&format!(r"\b(?:{pattern})\b"), true);
        let all: Vec<&str> = lists.words.iter().map(|word| word.pattern.as_str()).collect();
        let openings = lists.openings.join("|");
        Self {
            any: whole(&all.join("|")),
            words: lists.words.iter().map(|word| (whole(&word.pattern), word.instead.clone())).collect(),
            opening: ascii(&format!(r"^\s*(?://[/!]?|#+|--+|\*|<!--|\{{\{{-?\s*/\*|>)\s*({openings})\s"), false),
            sentence_opening: ascii(&format!(r"(?:^|[.:;] )({openings}) [a-z]"), false),
            boundary: ascii("([a-z0-9])([A-Z])", false),
            lists,
        }
    }

    fn of_the_project() -> Self {
        let text = fs::read_to_string(workspace().join(LIST)).expect("the list of words");
        Self::new(toml::from_str(&text).unwrap_or_else(|error| panic!("{LIST}: {error}")))
    }

    fn is_pending(&self, file: &Path) -> bool {
        self.lists.pending.iter().any(|prefix| file.starts_with(prefix))
    }

    /// Returns a line for every avoided word and opening in a file.
    fn avoided(&self, file: &Path, text: &str) -> Vec<String> {
        let name = file.display().to_string();
        let allowed: Vec<&str> =
            self.lists.allowed.iter().filter_map(|allowed| allowed.strip_prefix(&name)?.strip_prefix(": ")).collect();
        let mut found = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = allowed.iter().fold(line.to_owned(), |line, allowed| line.replace(allowed, ""));
            for (word, instead) in self.matches(&line, has_extension(file, &["md"])) {
                found.push(format!("{name}:{}: `{word}`: write {instead}", index + 1));
            }
        }
        found
    }

    fn matches(&self, line: &str, is_markdown: bool) -> Vec<(String, &str)> {
        let mut found = Vec::new();
        let spaced = self.boundary.replace_all(line, "$1 $2").replace('_', " ");
        if self.any.is_match(&spaced) {
            let words = self.words.iter();
            found.extend(
                words.filter_map(|(word, instead)| Some((word.find(&spaced)?.as_str().to_owned(), &**instead))),
            );
        }
        let opening = match is_markdown {
            true if line.starts_with('#') => None,
            true => self.sentence_opening.captures(line).or_else(|| self.opening.captures(line)),
            false => self.opening.captures(line),
        };
        found.extend(opening.map(|opening| (opening[1].to_owned(), "the subject of the sentence first")));
        found
    }
}

/// Compiles a pattern over ASCII, because the automata for Unicode are slow without optimization.
fn ascii(pattern: &str, ignores_case: bool) -> Regex {
    let mut builder = RegexBuilder::new(pattern);
    builder.unicode(false).case_insensitive(ignores_case).size_limit(1 << 26).dfa_size_limit(1 << 26);
    builder.build().unwrap_or_else(|error| panic!("{LIST}: {error}"))
}

/// Returns a line for every sentence of a file that is too long.
fn long_sentences(file: &Path, text: &str) -> Vec<String> {
    let long = sentences(file, text).into_iter().filter(|sentence| sentence.words > SENTENCE_WORDS_MAX);
    long.map(|sentence| format!("{}:{}: {} words: {}", file.display(), sentence.line, sentence.words, sentence.start))
        .collect()
}

fn is_checked(path: &Path) -> bool {
    let is_text = has_extension(path, &EXTENSIONS) || NAMES.iter().any(|name| path.ends_with(name));
    let is_lock = path.ends_with("package-lock.json");
    let has_prose = !has_extension(path, &["json"])
        || ["helm", "deploy"].iter().any(|part| path.starts_with(workspace().join(part)));
    is_text && !is_lock && has_prose && !path.ends_with(LIST)
}

#[test]
fn prose_avoids_the_listed_words() {
    let rules = Rules::of_the_project();
    let found: Vec<String> = files(&is_checked)
        .iter()
        .filter(|(file, _)| !rules.is_pending(file))
        .flat_map(|(file, text)| rules.avoided(file, text))
        .collect();
    assert!(found.is_empty(), "{} words to replace:\n{}", found.len(), found.join("\n"));
}

#[test]
fn sentences_are_short() {
    let rules = Rules::of_the_project();
    let found: Vec<String> = files(&is_checked)
        .iter()
        .filter(|(file, _)| !rules.is_pending(file))
        .flat_map(|(file, text)| long_sentences(file, text))
        .collect();
    assert!(found.is_empty(), "{} sentences to split:\n{}", found.len(), found.join("\n"));
}

#[test]
fn pending_and_allowed_paths_exist() {
    let lists = Rules::of_the_project().lists;
    let allowed = lists.allowed.iter().map(|allowed| allowed.split_once(": ").expect("`file: text`"));
    for (file, text) in allowed {
        let content = fs::read_to_string(workspace().join(file)).unwrap_or_default();
        assert!(content.contains(text), "{LIST} allows a text that {file} does not contain: {text}");
    }
    let missing: Vec<&String> = lists.pending.iter().filter(|path| !workspace().join(path).exists()).collect();
    assert!(missing.is_empty(), "{LIST} lists paths that do not exist: {missing:?}");
}

fn sample() -> Rules {
    let lists = r#"
        words = [{ pattern = "quux|quuxes", instead = "quack" }, { pattern = "go(es)? awry", instead = "fail" }]
        openings = ["That"]
        allowed = ["src/third.rs: `quux` of the library"]
        pending = ["old", "new/part.rs"]
    "#;
    Rules::new(toml::from_str(lists).expect("a list"))
}

#[test]
fn a_listed_word_is_found_in_every_kind_of_file() {
    for (file, line) in [
        ("src/lib.rs", "/// A quux of the server."),
        ("src/lib.rs", "fn send_quux_now() {}"),
        ("src/lib.rs", "struct AllQuuxes;"),
        ("src/lib.rs", "    warn!(\"a Quux is late\");"),
        ("src/join.lua", "-- returns the quux"),
        ("Cargo.toml", "# the quux"),
        ("values.yaml", "key: 1 # quux"),
        ("templates/_pod.tpl", "{{- /* a quux */ -}}"),
        ("README.md", "| a | quux |"),
        ("check.sh", "echo \"quux\""),
        ("page.mjs", "test('a quux returns', () => {})"),
        ("test_page.py", "def test_a_quux_returns():"),
        ("index.php", "// quux"),
        ("index.html", "<p>A quux.</p>"),
        ("Makefile", "build: ## Build the quux"),
        ("Dockerfile", "# quux"),
        ("nginx.conf", "# quux"),
        ("carillon.service", "Description=A quux"),
    ] {
        assert!(is_checked(Path::new(file)), "{file} is not checked");
        let found = sample().avoided(Path::new(file), &format!("\n{line}\n"));
        assert_eq!(found.len(), 1, "{file}: {line}: {found:?}");
        assert!(found[0].starts_with(&format!("{file}:2: `")) && found[0].ends_with(": write quack"), "{found:?}");
    }
}

#[test]
fn phrases_match_as_whole_words() {
    let found = |line: &str| sample().avoided(Path::new("src/lib.rs"), line).len();
    assert_eq!(found("// it goes awry"), 1);
    assert_eq!(found("fn GoAwry() {}"), 1);
    assert_eq!(found("// quuxy, a ququux and forego awryness"), 0);
}

#[test]
fn a_comment_names_its_subject_first() {
    for (file, line, count) in [
        ("src/lib.rs", "/// That is late.", 1),
        ("src/lib.rs", "// That is late.", 1),
        ("src/lib.rs", "let x = 1; That is late", 0),
        ("src/join.lua", "-- That is late.", 1),
        ("check.sh", "# That is late.", 1),
        ("README.md", "The server runs. That is late.", 1),
        ("README.md", "That is late.", 1),
        ("README.md", "## That is late", 0),
        ("README.md", "The server. Thatched roofs.", 0),
    ] {
        assert_eq!(sample().avoided(Path::new(file), line).len(), count, "{file}: {line}");
    }
}

#[test]
fn allowed_texts_and_pending_folders_are_skipped() {
    let rules = sample();
    assert_eq!(rules.avoided(Path::new("src/third.rs"), "// the `quux` of the library").len(), 0);
    assert_eq!(rules.avoided(Path::new("src/third.rs"), "// the `quux` of the server").len(), 1);
    assert_eq!(rules.avoided(Path::new("src/other.rs"), "// the `quux` of the library").len(), 1);
    assert!(rules.is_pending(Path::new("old/src/lib.rs")) && rules.is_pending(Path::new("new/part.rs")));
    assert!(!rules.is_pending(Path::new("older/lib.rs")) && !rules.is_pending(Path::new("new/parts.rs")));
}

#[test]
fn a_long_sentence_is_found_in_every_kind_of_file() {
    let long = vec!["word"; SENTENCE_WORDS_MAX + 1].join(" ");
    let halves = (&long[..40], &long[41 - 1..]);
    for (file, text) in [
        ("src/lib.rs", format!("/// {}\n/// {}.", halves.0, halves.1.trim())),
        ("src/lib.rs", format!("    // {long}.")),
        ("src/join.lua", format!("-- {long}.")),
        ("values.yaml", format!("# {}\n# {}.", halves.0, halves.1.trim())),
        ("page.css", format!("/*\n * {long}.\n */")),
        ("README.md", format!("A short one. {}\n{}.", halves.0, halves.1.trim())),
        ("README.md", format!("- {long}.")),
    ] {
        assert_eq!(long_sentences(Path::new(file), &text).len(), 1, "{file}: {text}");
        assert_eq!(long_sentences(Path::new(file), &text.replacen("word word ", "word. word ", 1)), [""; 0], "{file}");
    }
    for (file, text) in [
        ("README.md", format!("```\n{long}\n```")),
        ("README.md", format!("| {long} |")),
        ("src/lib.rs", format!("/// ```\n/// {long}\n/// ```")),
        ("src/lib.rs", format!("let text = \"{long}\";")),
    ] {
        assert_eq!(long_sentences(Path::new(file), &text), [""; 0], "{file}: {text}");
    }
}
