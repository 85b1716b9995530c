//! Every link of the README, the guide and the documentation leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use regex::Regex;

use crate::package::{SOURCES, files, read};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where docs.rs shows the documentation of the newest release.
const DOCS: &str = "https://docs.rs/bottle-session/latest/bottle_session/";

/// The documentation as rustdoc makes it, with what can be linked to on each page.
struct Documentation {
    folder: PathBuf,
    /// By the page's path below the folder: the names that a fragment can be.
    pages: BTreeMap<PathBuf, BTreeSet<String>>,
}

impl Documentation {
    fn make() -> Documentation {
        let test = std::env::current_exe().expect("this test has a path");
        let target = test.ancestors().nth(3).expect("target/debug/deps");
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["doc", "--all-features", "--no-deps", "--offline", "--quiet"])
            .arg("--target-dir")
            .arg(target)
            .env("RUSTDOCFLAGS", "-D warnings")
            .current_dir(ROOT);
        // What cargo tells a test of its package, the build of another one (ring) would take for a change.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(name);
            }
        }
        assert!(command.status().expect("cargo runs").success(), "cargo doc fails, or warns");
        let folder = target.join("doc");
        let mut pages = BTreeMap::new();
        pages_below(&folder, &folder.join("bottle_session"), &mut pages);
        Documentation { folder, pages }
    }

    /// Why this address, on a page below the folder, leads nowhere.
    fn broken(&self, page: &Path, address: &str) -> Option<&'static str> {
        let (path, fragment) = match address.split_once('#') {
            Some((path, fragment)) => (path, Some(fragment)),
            None => (address, None),
        };
        let path = path.split('?').next().unwrap_or_default();
        let to = match path {
            "" => page.to_owned(),
            path => plain(&page.parent().unwrap_or(Path::new("")).join(path)),
        };
        let Some(names) = self.pages.get(&to) else {
            // Pages of the source, scripts, and what rustdoc shares among crates.
            return (!self.folder.join(&to).exists()).then_some("there is no such page");
        };
        // "method.get" and the like; an empty one is the top.
        let missing = fragment.is_some_and(|name| !name.is_empty() && !names.contains(name));
        missing.then_some("the page has no such heading or item")
    }
}

fn pages_below(root: &Path, folder: &Path, pages: &mut BTreeMap<PathBuf, BTreeSet<String>>) {
    let id = Regex::new(r#" id="([^"]+)""#).unwrap();
    for entry in std::fs::read_dir(folder).expect("rustdoc has made it") {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages_below(root, &path, pages);
        } else if path.extension().is_some_and(|extension| extension == "html") {
            let html = std::fs::read_to_string(&path).unwrap();
            let names = id.captures_iter(&html).map(|found| found[1].to_owned()).collect();
            pages.insert(path.strip_prefix(root).unwrap().to_owned(), names);
        }
    }
}

/// The path without `..` in it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// The addresses of a text in Markdown, outside of its programs.
fn addresses(markdown: &str) -> Vec<String> {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut code = false;
    let prose: Vec<_> = markdown
        .lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            code ^= fence;
            !code && !fence
        })
        .collect();
    link.captures_iter(&prose.join("\n")).map(|found| found[1].to_owned()).collect()
}

/// Links that the `cookie` crate's documentation of what is exported here again has, to what is not.
const IN_OTHER_CRATES: [(&str, &str); 3] = [
    ("bottle_session/struct.Cookie.html", "Expiration::Session"),
    ("bottle_session/struct.Key.html", "crate::PrivateJar"),
    ("bottle_session/struct.Key.html", "crate::SignedJar"),
];

#[test]
fn every_link_in_the_documentation_leads_to_a_page_and_a_place_on_it() {
    let documentation = Documentation::make();
    let link = Regex::new(r#"<a [^>]*href="([^"]+)""#).unwrap();
    let files = files();
    let (mut checked, mut broken) = (0, Vec::new());
    for page in documentation.pages.keys() {
        let html = std::fs::read_to_string(documentation.folder.join(page)).unwrap();
        for address in link.captures_iter(&html).map(|found| found[1].replace("&amp;", "&")) {
            checked += 1;
            let why = if let Some(file) = address.strip_prefix(SOURCES) {
                broken_source(&files, file)
            } else if let Some(rest) = address.strip_prefix(DOCS) {
                documentation.broken(Path::new("bottle_session/index.html"), &page_of(rest))
            } else if address.contains("://")
                || address.starts_with("mailto:")
                || IN_OTHER_CRATES.contains(&(page.to_str().unwrap(), &address))
            {
                None
            } else {
                documentation.broken(page, &address)
            };
            broken.extend(why.map(|why| format!("{}: {address}: {why}", page.display())));
        }
    }
    let readme = read("README.md");
    for address in addresses(&readme) {
        checked += 1;
        let why = if let Some(file) = address.strip_prefix(SOURCES) {
            broken_source(&files, file)
        } else if let Some(rest) = address.strip_prefix(DOCS) {
            documentation.broken(Path::new("bottle_session/index.html"), &page_of(rest))
        } else if address.starts_with("https://") {
            None
        } else {
            Some("crates.io cannot resolve it")
        };
        broken.extend(why.map(|why| format!("README.md: {address}: {why}")));
    }
    assert!(checked > 1_000, "{checked} links");
    assert!(broken.is_empty(), "{} broken links:\n{}", broken.len(), broken.join("\n"));
}

/// A folder's address is that of its page.
fn page_of(address: &str) -> String {
    let (path, fragment) = address.split_once('#').unwrap_or((address, ""));
    let page = if path.is_empty() || path.ends_with('/') { "index.html" } else { "" };
    format!("{path}{page}#{fragment}")
}

fn broken_source(files: &BTreeSet<String>, file: &str) -> Option<&'static str> {
    let folder = format!("{}/", file.trim_end_matches('/'));
    let there = files.contains(file) || files.iter().any(|other| other.starts_with(&folder));
    (!there).then_some("the package has no such file")
}

#[test]
fn the_pages_of_the_repository_name_files_that_are_there() {
    for page in ["CHANGELOG.md", "benches/peers/README.md"] {
        let folder = Path::new(ROOT).join(page).parent().unwrap().to_owned();
        for address in addresses(&read(page)) {
            let path = address.split('#').next().unwrap();
            let there = address.contains("://") || path.is_empty() || folder.join(path).exists();
            assert!(there, "{page}: {address}");
        }
    }
}

#[test]
fn the_front_page_of_the_guide_lists_each_of_its_pages_once() {
    let front = read("src/guide/mod.rs");
    // `file` is a macro as well.
    let listed = addresses(&front).into_iter().map(|address| address.replace("mod@", ""));
    let listed: Vec<_> = listed.collect();
    for entry in std::fs::read_dir(Path::new(ROOT).join("src/guide")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let times = listed.iter().filter(|listed| **listed == name).count();
            assert_eq!(times, 1, "{name}");
            assert!(front.contains(&format!("#[doc = include_str!(\"{name}.md\")]")), "{name}");
        }
    }
}

#[test]
fn the_readme_is_read_in_five_minutes_and_the_front_page_fits_one_screen() {
    let readme = read("README.md").lines().count();
    assert!(readme <= 220, "the README has {readme} lines");
    let library = read("src/lib.rs");
    let front = library.lines().take_while(|line| line.starts_with("//!")).count();
    assert!(front <= 45, "the front page has {front} lines");
    // The example is what one sees first.
    assert!(library.lines().nth(2).is_some_and(|line| line == "//! ```"));
}
