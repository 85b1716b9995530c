//! The index: how many rules a search has to try, however many there are.

use super::*;

/// How many of a thousand rules of this form are tried for a path that one of them matches.
fn tried(form: &str, path: &str) -> usize {
    let rules: Vec<String> = (0..1000).map(|n| form.replace('#', &n.to_string())).collect();
    let rules: Vec<_> = rules.iter().map(|text| ("GET", text.as_str())).collect();
    let router = router(&rules);
    assert!(
        matches!(router.find(&Method::GET, path, |_, _| true), Found::Match { value: 567, .. }),
        "{form} {path}"
    );
    router.candidates(path).len()
}

#[test]
fn of_a_thousand_rules_only_those_that_can_match_are_tried() {
    let table = [
        ("/area#/<id:int>", "/area567/1", 1),
        ("/<name>/page#", "/Ada/page567", 1),
        ("/<id:int>/page#", "/12/page567", 1),
        ("/<id:int>-<slug>/page#", "/12-a-title/page567", 1),
        ("/user#-<id>", "/user567-8", 1),
        ("/user#-<id:int>-<slug>", "/user567-8-ada", 1),
        ("/<name>.ext#", "/a.b.ext567", 1),
        ("/<word:re:[a-z]+>/page#", "/ada/page567", 1),
        ("/<:re:[a-z]+>-<n:int>/page#", "/ada-5/page567", 1),
        ("/<p:path>/page#", "/a/b/c/page567", 1),
        ("/<p:path>/<id:int>/page#", "/a/b/12/page567", 1),
        ("/x<p:path>/page#", "/xa/b/c/page567", 1),
        ("/<p:path>.ext#", "/a/b.c/d.ext567", 1),
        ("/files#/<p:path>.<ext>", "/files567/a/b.c", 1),
        ("/v<n:int>/files#/<p:re:.+>", "/v1/files567/a/b.c", 1),
    ];
    for (form, path, expected) in table {
        assert_eq!(tried(form, path), expected, "{form}");
    }
}
