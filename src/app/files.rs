//! Folders of files at a prefix.

use std::panic::Location;

use http::Method;

use super::{App, RouteOptions};
use crate::message::files::Files;
use crate::message::request::Request;
use crate::named;
use crate::{Error, ErrorKind};

/// Files.
impl App {
    /// Serves the files of a folder, a path or [`Files`], below a prefix: `app.files("/assets", "dist/assets")`. A folder
    /// that is not there is an error when the app is built.
    ///
    /// The prefix is a rule, whose dynamic part takes any path below it. Rules that were declared earlier go before it, so
    /// `app.files("/", "public")` is declared last: a page of the app's own at `/` is then shown in place of the folder's
    /// `index.html`. What a browser finds at which path, and for how long it keeps it, is
    /// said at [`Files`]. Large files are read while they are sent, a piece at a time: they hold neither memory nor others
    /// up.
    ///
    /// ```
    /// use bottle_session::{App, TestClient};
    ///
    /// # let folder = std::env::temp_dir().join(format!("bottle-files-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).map_err(bottle_session::Error::other)?;
    /// # let write = |name: &str, text: &str| std::fs::write(folder.join(name), text);
    /// # write("site.css", "body {}").map_err(bottle_session::Error::other)?;
    /// # write("app.3f2a9c1b.js", "run()").map_err(bottle_session::Error::other)?;
    /// let mut app = App::new();
    /// app.files("/assets", &folder);
    ///
    /// let client = TestClient::new(app)?;
    /// let style = client.get("/assets/site.css").send();
    /// assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
    /// assert_eq!(style.header("cache-control"), Some("no-cache"));
    /// let script = client.get("/assets/app.3f2a9c1b.js").send();
    /// assert_eq!(script.header("cache-control"), Some("max-age=31536000, immutable"));
    /// # std::fs::remove_dir_all(&folder).map_err(bottle_session::Error::other)?;
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[track_caller]
    pub fn files(&mut self, prefix: &str, files: impl Into<Files>) -> RouteOptions<'_> {
        let files = files.into();
        if !files.folder().is_dir() {
            let text = format!(
                "app.files({prefix:?}, …): {} is no folder that can be read; the path counts from where the program was \
                 started",
                files.folder().display()
            );
            self.errors.push(Error::new(ErrorKind::Config, text).at(Location::caller()));
        }
        let prefix = prefix.trim_end_matches('/');
        let start = format!("{prefix}/");
        let has_start = self.routes.iter().any(|route| {
            let gets = route.methods.is_empty() || route.methods.contains(&Method::GET);
            gets && route.rules.contains(&start)
        });
        let mut rules = vec![format!("{prefix}/<file:path>")];
        if !has_start {
            rules.push(start);
        }
        let handler = named!(move |request: &Request, file: Option<&str>| {
            files.answer(request, file.unwrap_or_default())
        });
        self.route(Method::GET, rules, handler)
    }
}
