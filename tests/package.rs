//! What `cargo publish` would send.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where docs.rs serves the files of the newest release.
pub const SOURCES: &str = "https://docs.rs/crate/bottle-session/latest/source/";

pub fn read(path: &str) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of the package.
pub fn files() -> BTreeSet<String> {
    let listed = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline", "--quiet"])
        .current_dir(ROOT)
        .output()
        .expect("cargo runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_package_holds_what_users_need_and_no_more() {
    let files = files();
    let named = [
        // Whether the work tree was clean, where it is one of git's.
        ".cargo_vcs_info.json",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "Cargo.toml.orig",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "benches/sessions.svg",
    ];
    for file in &named[1..] {
        assert!(files.contains(*file), "{file} is not in the package");
    }
    let known = |file: &str| {
        let ends = |ends: &[&str]| ends.iter().any(|end| file.ends_with(end));
        (file.starts_with("src/") && ends(&[".rs", ".md", ".lua"]))
            || (file.starts_with("examples/")
                && ends(&[".rs", ".html", ".css", ".png", ".js", ".svg"]))
    };
    let others: Vec<_> =
        files.iter().filter(|file| !named.contains(&file.as_str()) && !known(file)).collect();
    assert!(others.is_empty(), "in the package, and for whom? {others:?}");
    for folder in ["examples", "src/guide"] {
        for entry in std::fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            let there = files.iter().any(|file| file.starts_with(&path));
            assert!(there, "{path} is not in the package");
        }
    }
    let bytes: u64 = files
        .iter()
        .filter_map(|file| Some(std::fs::metadata(Path::new(ROOT).join(file)).ok()?.len()))
        .sum();
    assert!(bytes < 4 << 20, "{bytes} bytes");
}

#[test]
fn the_changelog_begins_with_the_version_of_the_package() {
    let changelog = read("CHANGELOG.md");
    let newest = changelog.lines().find_map(|line| line.strip_prefix("## ")).unwrap();
    assert_eq!(newest.split(' ').next(), Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn docs_rs_shows_all_features() {
    let manifest = read("Cargo.toml");
    let (_, docs) = manifest.split_once("[package.metadata.docs.rs]\n").unwrap();
    assert!(docs.starts_with("all-features = true\n"));
    assert!(read("src/lib.rs").contains("#![cfg_attr(docsrs, feature(doc_cfg))]"));
}

#[test]
fn the_pictures_of_the_readme_are_in_the_package_and_at_an_address_that_any_page_can_show() {
    let (readme, files) = (read("README.md"), files());
    let mut pictures = 0;
    for image in readme.split("![").skip(1) {
        let address = image.split_once("](").unwrap().1.split(')').next().unwrap();
        let file = address.strip_prefix(SOURCES);
        let file = file.unwrap_or_else(|| panic!("crates.io cannot resolve {address}"));
        assert!(files.contains(file), "{file} is not in the package");
        pictures += 1;
    }
    assert!(pictures > 0);
    assert!(!readme.contains("<img"), "pictures are written as Markdown");
}
