//! The table of standards in the guide names tests that exist.

/// The names of all functions in the sources below this folder.
fn functions(folder: &std::path::Path, found: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| line.trim().strip_prefix("fn "));
            found.extend(names.filter_map(|name| Some(name.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn each_test_that_the_table_of_standards_names_is_there() {
    let page = include_str!("../../src/guide/logins.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| asked for")).skip(2);
    let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 15, "{rows:?}");
    let (root, mut found) = (env!("CARGO_MANIFEST_DIR"), std::collections::BTreeSet::new());
    for folder in ["src", "tests"] {
        functions(&std::path::Path::new(root).join(folder), &mut found);
    }
    for row in rows {
        let tests = row.trim_end_matches([' ', '|']).rsplit_once('|').unwrap().1;
        let named: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{row}");
        for name in named {
            assert!(found.contains(name), "there is no test {name}: {row}");
        }
    }
}
