//! The index: how many patterns a search has to try, however many rules there are.

use super::super::segment::TRIED;
use super::*;

/// How many patterns are tried among a thousand rules of this form, for a path that one of them matches.
fn tried(form: &str, path: &str) -> usize {
    let rules: Vec<String> = (0..1000).map(|n| form.replace('#', &n.to_string())).collect();
    let rules: Vec<_> = rules.iter().map(|text| ("GET", text.as_str())).collect();
    let router = router(&rules);
    assert!(
        matches!(router.find(&Method::GET, path, |_, _| true), Found::Match { value: 567, .. }),
        "{form} {path}"
    );
    TRIED.set(0);
    assert_eq!(router.candidates(path).len(), 1, "{form} {path}");
    TRIED.get()
}

#[test]
fn of_a_thousand_rules_few_are_tried() {
    let table = [
        ("/area#/<id:int>", "/area567/1", 1),
        ("/<a:re:[a-z]+>/page#/<b:re:[0-9]+>", "/ada/page567/12", 2),
        ("/<name>/page#", "/Ada/page567", 1),
        ("/<id:int>/page#", "/12/page567", 1),
        ("/<id:int>-<slug>/page#", "/12-a-title/page567", 1),
        ("/user#-<id>", "/user567-8", 1),
        ("/user#-<id:int>-<slug>", "/user567-8-ada", 1),
        ("/<name>.ext#", "/a.b.ext567", 1),
        ("/<word:re:[a-z]+>/page#", "/ada/page567", 1),
        ("/<:re:[a-z]+>-<n:int>/page#", "/ada-5/page567", 1),
        ("/<p:path>/page#", "/a/b/c/page567", 1),
        ("/<p:path>/<id:int>/page#", "/a/b/12/page567", 2),
        ("/x<p:path>/page#", "/xa/b/c/page567", 1),
        ("/<p:path>.ext#", "/a/b.c/d.ext567", 1),
        ("/files#/<p:path>.<ext>", "/files567/a/b.c", 1),
        ("/v<n:int>/files#/<p:re:.+>", "/v1/files567/a/b.c", 2),
    ];
    for (form, path, expected) in table {
        assert_eq!(tried(form, path), expected, "{form}");
    }
}
