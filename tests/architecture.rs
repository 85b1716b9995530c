//! The layers of the crate: what a folder imports lies in its own folder or below it.

use std::fs;
use std::path::{Path, PathBuf};

/// From the top down.
const LAYERS: [&str; 13] = [
    "testing", "app", "server", "plugins", "session", "redis", "handler", "pipeline", "routing",
    "message", "error", "logging", "lock",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The layers that a line of code names, as `crate::layer`.
fn named(line: &str) -> impl Iterator<Item = usize> {
    let code = line.split("//").next().unwrap_or_default();
    code.split("crate::").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        LAYERS.iter().position(|layer| *layer == &rest[..end])
    })
}

#[test]
fn imports_between_folders_go_one_way_downwards() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut seen, mut upwards) = (0, Vec::new());
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let folder = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let Some(own) = LAYERS.iter().position(|layer| *layer == folder.trim_end_matches(".rs"))
        else {
            assert!(["lib.rs", "guide"].contains(&folder), "{folder} is in no layer");
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for layer in named(line) {
                seen += 1;
                if layer < own {
                    let place = format!("src/{}:{}", relative.display(), number + 1);
                    upwards.push(format!("{place}: {} imports {}", LAYERS[own], LAYERS[layer]));
                }
            }
        }
    }
    assert!(seen > 100, "{seen} imports");
    assert!(upwards.is_empty(), "upwards:\n{}", upwards.join("\n"));
}

#[test]
fn an_import_is_found_wherever_it_stands_in_a_line() {
    for (line, expected) in [
        ("use crate::pipeline::plugin::Entry;", vec![7]),
        (
            "    fn f(a: &crate::server::Server) -> crate::Result<crate::error::Error> {",
            vec![2, 10],
        ),
        ("// use crate::server::Server", vec![]),
        ("use crate::{Error, Result};", vec![]),
        ("pub(crate) mod server;", vec![]),
    ] {
        assert_eq!(named(line).collect::<Vec<_>>(), expected, "{line}");
    }
}

#[test]
fn a_store_behind_an_arc_has_every_method_of_the_store() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/session/store/contract.rs");
    let source = fs::read_to_string(path).unwrap();
    let methods = |head: &str| {
        let body = source.split_once(head).unwrap().1.split_once("\n}\n").unwrap().0;
        let names = body.split("\n    fn ").skip(1).map(|rest| rest.split('(').next().unwrap());
        names.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let all = methods("pub trait SessionStore");
    assert!(all.len() > 10, "{all:?}");
    // What has a default in the trait compiles without, and would be another answer than the store's.
    assert_eq!(methods("SessionStore for Arc<S>"), all);
}
