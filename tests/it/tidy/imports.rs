//! Reads the imports and functions of a Rust file from its tokens.
//!
//! Tokens suffice: they cover macro bodies, which a syntax tree leaves out.

use std::collections::HashMap;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// The names of a module or an item, from the crate's root on.
pub(super) type Path = Vec<String>;

/// A path in the code of a file.
#[derive(Debug)]
pub(super) struct Mention {
    /// The module that contains the path: the file's own, or a module inside the file.
    pub module: Path,
    /// The segments as written. The first is `crate`, `self`, `super` or a name.
    pub path: Path,
    /// The line number, from 1 on.
    pub line: usize,
}

/// A function with a body.
#[derive(Debug)]
pub(super) struct Function {
    /// The name.
    pub name: String,
    /// The line of `fn`.
    pub line: usize,
    /// The number of lines from `fn` to the closing brace.
    pub lines: usize,
}

/// The imports and functions of one file.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Every path outside tests, imports included.
    pub mentions: Vec<Mention>,
    /// For each module of the file, the imported names with their paths.
    pub aliases: HashMap<Path, HashMap<String, Path>>,
    /// The modules inside the file.
    pub inline: Vec<Path>,
    /// The modules that only tests compile.
    pub test_modules: Vec<Path>,
    /// Every function, tests included.
    pub functions: Vec<Function>,
}

impl Source {
    /// Parses the text of the file that contains `module`.
    ///
    /// # Errors
    /// If the text is not a sequence of Rust tokens.
    pub(super) fn parse(module: &[String], text: &str) -> Result<Self, String> {
        let tokens: TokenStream = text.parse().map_err(|error| format!("cannot split into tokens: {error}"))?;
        let mut source = Self::default();
        source.walk(tokens, module, false);
        Ok(source)
    }

    fn walk(&mut self, tokens: TokenStream, module: &[String], is_test: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut next_is_test = false;
        let mut index = 0;
        while let Some(token) = tokens.get(index) {
            if let Some((attribute, length)) = attribute(&tokens[index..]) {
                next_is_test |= attribute == "cfg(test)";
                index += length;
                continue;
            }
            if next_is_test {
                next_is_test = false;
                let length = item_length(&tokens[index..]);
                self.walk_test_item(&tokens[index..index + length], module);
                index += length;
                continue;
            }
            index += match token {
                TokenTree::Group(group) => {
                    self.walk(group.stream(), module, is_test);
                    1
                }
                TokenTree::Ident(word) => self.word(&word.to_string(), &tokens, index, module, is_test),
                TokenTree::Punct(_) | TokenTree::Literal(_) => 1,
            };
        }
    }

    /// Reads what follows an identifier, and returns the number of tokens read.
    fn word(&mut self, word: &str, tokens: &[TokenTree], index: usize, module: &[String], is_test: bool) -> usize {
        match word {
            "use" if !is_punct(tokens.get(index + 1), '<') => return self.import(tokens, index, module, is_test),
            "mod" => {
                if let (Some(TokenTree::Ident(name)), Some(body)) = (tokens.get(index + 1), braces(tokens, index + 2)) {
                    let inner = joined(module, &name.to_string());
                    self.inline.push(inner.clone());
                    self.walk(body.stream(), &inner, is_test);
                    return 3;
                }
            }
            "fn" => self.function(&tokens[index..]),
            "pub" if is_restriction(tokens.get(index + 1)) => return 2,
            _ => {}
        }
        let (path, length) = path(&tokens[index..]);
        let continues = index >= 2 && is_colons(&tokens[index - 2..]);
        if path.len() > 1 && !continues && !is_test {
            let line = tokens[index].span().start().line;
            self.mentions.push(Mention { module: module.to_vec(), path, line });
        }
        length
    }

    fn import(&mut self, tokens: &[TokenTree], index: usize, module: &[String], is_test: bool) -> usize {
        let end = tokens[index..].iter().position(|token| is_punct(Some(token), ';')).unwrap_or(tokens.len() - index);
        let mut leaves = Vec::new();
        import_leaves(&tokens[index + 1..index + end], &[], &mut leaves);
        let line = tokens[index].span().start().line;
        for (path, name) in leaves.into_iter().filter(|_| !is_test) {
            self.aliases.entry(module.to_vec()).or_default().insert(name, path.clone());
            self.mentions.push(Mention { module: module.to_vec(), path, line });
        }
        end
    }

    fn function(&mut self, tokens: &[TokenTree]) {
        let Some(TokenTree::Ident(name)) = tokens.get(1) else { return };
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ';' => return,
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    let line = tokens[0].span().start().line;
                    let lines = group.span_close().end().line + 1 - line;
                    self.functions.push(Function { name: name.to_string(), line, lines });
                    return;
                }
                _ => {}
            }
        }
    }

    /// Records the functions and modules of an item that only tests compile.
    fn walk_test_item(&mut self, item: &[TokenTree], module: &[String]) {
        if let Some(at) = item.iter().position(|token| is_word(Some(token), "mod"))
            && let Some(TokenTree::Ident(name)) = item.get(at + 1)
        {
            self.test_modules.push(joined(module, &name.to_string()));
        }
        self.walk(item.iter().cloned().collect(), module, true);
    }
}

/// Returns the text of the attribute at the start of `tokens`, without spaces, and its number of tokens.
fn attribute(tokens: &[TokenTree]) -> Option<(String, usize)> {
    if !is_punct(tokens.first(), '#') {
        return None;
    }
    let at = if is_punct(tokens.get(1), '!') { 2 } else { 1 };
    match tokens.get(at)? {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
            Some((group.stream().to_string().replace(' ', ""), at + 1))
        }
        _ => None,
    }
}

/// Returns the number of tokens of the item, field or match arm at the start of `tokens`.
fn item_length(tokens: &[TokenTree]) -> usize {
    const ITEMS: [&str; 12] =
        ["async", "const", "enum", "fn", "impl", "let", "mod", "pub", "struct", "trait", "type", "use"];
    let is_item = ITEMS.iter().any(|word| is_word(tokens.first(), word));
    let end = tokens.iter().position(|token| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';' || (punct.as_char() == ',' && !is_item),
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    });
    end.map_or(tokens.len(), |end| end + 1)
}

/// Returns the path at the start of `tokens` and its number of tokens.
fn path(tokens: &[TokenTree]) -> (Path, usize) {
    let mut path = Vec::new();
    let mut index = 0;
    while let Some(TokenTree::Ident(name)) = tokens.get(index) {
        path.push(name.to_string());
        index += 1;
        let continues = is_colons(&tokens[index..]) && matches!(tokens.get(index + 2), Some(TokenTree::Ident(_)));
        if !continues {
            break;
        }
        index += 2;
    }
    (path, index)
}

/// Appends every imported path of a `use` tree with the name that it gets.
fn import_leaves(tokens: &[TokenTree], prefix: &[String], leaves: &mut Vec<(Path, String)>) {
    for tree in tokens.split(|token| is_punct(Some(token), ',')) {
        let (mut segments, mut at) = path(tree);
        if segments.last().is_some_and(|last| last == "self") && !prefix.is_empty() {
            segments.pop();
        }
        let whole = [prefix, &segments].concat();
        if is_colons(&tree[at..]) {
            at += 2;
        }
        let renamed = is_word(tree.get(at), "as").then(|| tree.get(at + 1)).flatten();
        match tree.get(at) {
            Some(TokenTree::Group(group)) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                import_leaves(&inner, &whole, leaves);
            }
            _ if whole.is_empty() => {}
            Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => leaves.push((whole, "*".to_owned())),
            _ => {
                let name = renamed.map_or_else(|| whole[whole.len() - 1].clone(), ToString::to_string);
                leaves.push((whole, name));
            }
        }
    }
}

fn joined(module: &[String], name: &str) -> Path {
    let mut path = module.to_vec();
    path.push(name.to_owned());
    path
}

fn braces(tokens: &[TokenTree], index: usize) -> Option<&Group> {
    match tokens.get(index)? {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group),
        _ => None,
    }
}

/// Whether `token` is the group of `pub(crate)` or `pub(in path)`.
fn is_restriction(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else { return false };
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Parenthesis
        && ["crate", "in", "self", "super"].iter().any(|word| is_word(first.as_ref(), word))
}

fn is_word(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == word)
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

/// Whether `tokens` begins with `::`.
fn is_colons(tokens: &[TokenTree]) -> bool {
    let first = tokens.first();
    is_punct(first, ':')
        && matches!(first, Some(TokenTree::Punct(punct)) if punct.spacing() == Spacing::Joint)
        && is_punct(tokens.get(1), ':')
}
