//! A private index of Python packages: pip installs from it, twine uploads to it (PEP 503, and PyPI's upload form).
//!
//! ```text
//! cargo run --example packages
//! twine upload --repository-url http://localhost:8888/ -u ada -p lovelace1815 dist/*
//! pip install --index-url http://localhost:8888/simple/ hello
//! ```

mod passwords;

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use bottle_session::{
    App, Form, Html, HttpError, Provided, Redirect, Request, Result, Upload, Urls, abort,
    basic_challenge, escape_html, redirect, static_file,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Where the packages are, a folder for each project.
pub struct Packages {
    folder: PathBuf,
}

impl Provided for Packages {}

/// Who may upload, and what is kept of the password.
pub struct Uploader {
    name: String,
    password: String,
}

impl Provided for Uploader {}

impl Uploader {
    /// One of this name and password.
    pub fn new(name: &str, password: &str) -> Result<Uploader> {
        Ok(Uploader { name: name.to_owned(), password: passwords::hashed(password)? })
    }
}

/// What twine sends, as far as it is used here.
#[derive(Deserialize)]
struct Uploaded {
    #[serde(rename = ":action")]
    action: String,
    name: String,
    sha256_digest: String,
    content: Upload,
}

fn main() -> Result<()> {
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    let password = std::env::var("PASSWORD").unwrap_or("lovelace1815".to_owned());
    println!("Packages are in the folder packages. Listening on http://{address}");
    app("packages", Uploader::new("ada", &password)?)?.run(&address)
}

/// The index.
pub fn app(folder: impl Into<PathBuf>, uploader: Uploader) -> Result<App> {
    let folder = folder.into();
    fs::create_dir_all(&folder)?;
    let mut app = App::new();
    app.state(Packages { folder });
    app.state(uploader);
    app.get("/", || redirect("/simple/").permanent());
    app.group("/simple", |simple| {
        simple.get("/", projects);
        simple.get("/<project>/", files).name("project");
        simple.get("/<project>", |urls: &Urls, project: &str| to_project(urls, project));
    });
    app.get(
        "/packages/<project>/<file>",
        |request: &Request, packages: &Packages, project: &str, file: &str| {
            // A file of one name never changes.
            static_file(request, &format!("{project}/{file}"), &packages.folder)
                .with_header("cache-control", "max-age=31536000, immutable")
        },
    )
    .name("file");
    app.post("/", upload).body_limit(100 * 1024 * 1024).before(may_upload);
    app.error(404, |error: &HttpError| (404, format!("{}\n", error.message())));
    Ok(app)
}

fn may_upload(request: &Request, uploader: &Uploader) -> Result<(), HttpError> {
    match request.basic_auth() {
        Some((name, password))
            if passwords::is_right(
                &password,
                (name == uploader.name).then_some(&uploader.password),
            ) =>
        {
            Ok(())
        }
        _ => Err(basic_challenge("Packages")),
    }
}

fn projects(packages: &Packages, urls: &Urls) -> Result<Html<String>, HttpError> {
    let mut page = String::from("<!DOCTYPE html><title>Simple index</title>");
    for name in listed(&packages.folder)? {
        let url = urls.build("project", &[("project", &name)])?;
        page.push_str(&format!("<a href=\"{url}\">{}</a><br>\n", escape_html(&name)));
    }
    Ok(Html(page))
}

fn to_project(urls: &Urls, project: &str) -> Result<Redirect> {
    Ok(redirect(urls.build("project", &[("project", &normalized(project))])?).permanent())
}

fn files(packages: &Packages, urls: &Urls, project: &str) -> Result<Html<String>, HttpError> {
    let name = normalized(project);
    if name != project {
        return Err(to_project(urls, &name)?.into());
    }
    let mut page = String::from("<!DOCTYPE html><title>Links</title>");
    for file in listed(&packages.folder.join(&name))? {
        let digest = digest(fs::File::open(packages.folder.join(&name).join(&file))?)?;
        let url = urls.build("file", &[("project", &name), ("file", &file)])?;
        page.push_str(&format!(
            "<a href=\"{}#sha256={digest}\">{}</a><br>\n",
            escape_html(&url),
            escape_html(&file)
        ));
    }
    Ok(Html(page))
}

fn upload(packages: &Packages, Form(uploaded): Form<Uploaded>) -> Result<(), HttpError> {
    let Uploaded { action, name, sha256_digest, content } = uploaded;
    if action != "file_upload" {
        return Err(abort(400, format!("{action:?} is not done here.")));
    }
    let (project, file) = (normalized(&name), content.filename());
    let is_package = file.ends_with(".whl") || file.ends_with(".tar.gz") || file.ends_with(".zip");
    let of_project = normalized(file).starts_with(&project);
    if !is_package || !of_project || project.is_empty() {
        return Err(abort(400, format!("{file:?} is no package of {name}.")));
    }
    if digest(content.reader())? != sha256_digest {
        return Err(abort(400, "The file is not the one that its digest is of."));
    }
    let folder = packages.folder.join(&project);
    fs::create_dir_all(&folder)?;
    let mut new = match fs::File::create_new(folder.join(file)) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(abort(409, format!("{file} is there already.")));
        }
        new => new?,
    };
    if let Err(error) = std::io::copy(&mut content.reader(), &mut new) {
        // Half a file is none.
        fs::remove_file(folder.join(file))?;
        return Err(error.into());
    }
    Ok(())
}

/// PEP 503: the name by which a project is found, however it is written.
fn normalized(name: &str) -> String {
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}

fn listed(folder: &Path) -> Result<Vec<String>, HttpError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(abort(404, "There is no such project."));
        }
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn digest(mut file: impl Read) -> Result<String, HttpError> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
