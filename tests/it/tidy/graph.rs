//! The import graph of one crate: which file imports from which.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::imports::{Mention, Path, Source};

/// An import of one file from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Import {
    /// The module of the importing file.
    pub from: Path,
    /// The module of the imported file.
    pub to: Path,
    /// The line of the import.
    pub line: usize,
}

/// The files of one crate, by module, and their imports.
#[derive(Debug)]
pub(super) struct Graph {
    /// The module of every file that is compiled outside tests. The crate's root is the empty path.
    pub modules: BTreeSet<Path>,
    /// The imports between these files, sorted.
    pub imports: Vec<Import>,
}

impl Graph {
    /// Builds the graph from the modules and texts of a crate's files.
    ///
    /// # Panics
    /// If a file does not consist of Rust tokens.
    pub(super) fn new(files: &[(Path, String)]) -> Self {
        let sources: Vec<(Path, Source)> = files
            .iter()
            .map(|(module, text)| match Source::parse(module, text) {
                Ok(source) => (module.clone(), source),
                Err(error) => panic!("{}: {error}", display(module)),
            })
            .collect();
        let tests: HashSet<&Path> = sources.iter().flat_map(|(_, source)| &source.test_modules).collect();
        let is_test = |module: &Path| {
            module.iter().any(|name| name == "tests")
                || (1..=module.len()).any(|end| tests.contains(&module[..end].to_vec()))
        };
        let resolver = Resolver::new(&sources);
        let mut imports: Vec<Import> = Vec::new();
        for (from, source) in sources.iter().filter(|(module, _)| !is_test(module)) {
            for mention in &source.mentions {
                if let Some(to) = resolver.file(mention)
                    && to != *from
                    && !is_test(&to)
                {
                    imports.push(Import { from: from.clone(), to, line: mention.line });
                }
            }
        }
        imports.sort();
        imports.dedup_by(|next, first| next.from == first.from && next.to == first.to);
        let modules = files.iter().map(|(module, _)| module.clone()).filter(|module| !is_test(module)).collect();
        Self { modules, imports }
    }

    /// Returns the circles of imports, each as the sorted modules of its files.
    ///
    /// A module may import from the modules that contain it. Such an import is not part of a circle.
    pub(super) fn circles(&self) -> Vec<Vec<Path>> {
        let mut targets: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
        for import in self.imports.iter().filter(|import| !is_ancestor(&import.to, &import.from)) {
            targets.entry(&import.from).or_default().push(&import.to);
        }
        let reachable: BTreeMap<&Path, BTreeSet<&Path>> =
            self.modules.iter().map(|module| (module, reachable(module, &targets))).collect();
        let mut circles = BTreeSet::new();
        for module in &self.modules {
            let circle: Vec<Path> = reachable[module]
                .iter()
                .filter(|other| reachable[*other].contains(module))
                .map(|other| (*other).clone())
                .collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }
}

fn reachable<'a>(start: &'a Path, targets: &BTreeMap<&'a Path, Vec<&'a Path>>) -> BTreeSet<&'a Path> {
    let mut found = BTreeSet::new();
    let mut pending = vec![start];
    while let Some(module) = pending.pop() {
        for target in targets.get(module).into_iter().flatten() {
            if found.insert(*target) {
                pending.push(target);
            }
        }
    }
    found
}

/// Whether `ancestor` contains `module`, directly or not.
pub(super) fn is_ancestor(ancestor: &[String], module: &[String]) -> bool {
    module.starts_with(ancestor)
}

/// Returns the path of a module as text.
pub(super) fn display(module: &[String]) -> String {
    if module.is_empty() { "crate".to_owned() } else { module.join("::") }
}

/// Finds the file that defines a path. Follows re-exports.
struct Resolver<'a> {
    files: HashSet<&'a Path>,
    inline: HashSet<&'a Path>,
    aliases: HashMap<&'a Path, &'a HashMap<String, Path>>,
}

impl<'a> Resolver<'a> {
    fn new(sources: &'a [(Path, Source)]) -> Self {
        Self {
            files: sources.iter().map(|(module, _)| module).collect(),
            inline: sources.iter().flat_map(|(_, source)| &source.inline).collect(),
            aliases: sources.iter().flat_map(|(_, source)| &source.aliases).collect(),
        }
    }

    /// Returns the module of the file that defines the mentioned item, if it belongs to the crate.
    fn file(&self, mention: &Mention) -> Option<Path> {
        let is_import =
            self.aliases.get(&mention.module).is_some_and(|aliases| aliases.values().any(|path| *path == mention.path));
        self.resolve(&mention.module, &mention.path, !is_import, 0)
    }

    fn resolve(&self, module: &Path, path: &[String], by_alias: bool, depth: usize) -> Option<Path> {
        const DEPTH_MAX: usize = 16;
        if depth > DEPTH_MAX {
            return None;
        }
        let absolute = match path.first()?.as_str() {
            "crate" => path[1..].to_vec(),
            "self" => [module, &path[1..]].concat(),
            "super" => {
                let supers = path.iter().take_while(|name| *name == "super").count();
                let kept = module.len().checked_sub(supers)?;
                [&module[..kept], &path[supers..]].concat()
            }
            first => {
                let alias = self.aliases.get(module).and_then(|aliases| aliases.get(first));
                if let Some(target) = alias.filter(|_| by_alias) {
                    return self.resolve(module, &[target, &path[1..]].concat(), false, depth + 1);
                }
                let child = [module, &path[..1]].concat();
                if !self.contains(&child) {
                    return None;
                }
                [module, path].concat()
            }
        };
        self.lookup(&absolute, depth)
    }

    fn lookup(&self, absolute: &[String], depth: usize) -> Option<Path> {
        let length = (0..=absolute.len()).rev().find(|length| self.contains(&absolute[..*length].to_vec()))?;
        let (module, rest) = (absolute[..length].to_vec(), &absolute[length..]);
        let alias = rest.first().and_then(|name| self.aliases.get(&module)?.get(name));
        if let Some(target) = alias {
            let followed = self.resolve(&module, &[target, &rest[1..]].concat(), false, depth + 1);
            if followed.is_some() {
                return followed;
            }
        }
        (0..=length).rev().map(|length| module[..length].to_vec()).find(|module| self.files.contains(module))
    }

    fn contains(&self, module: &Path) -> bool {
        self.files.contains(module) || self.inline.contains(module)
    }
}
