//! A timeline on Redis: sign up, post, follow, and read what those you follow have posted.
//!
//! ```text
//! redis-server --port 6379 &
//! cargo run --example timeline
//! curl -c jar -b jar -H 'Sec-Fetch-Site: same-origin' -d name=ada -d password=lovelace1815 localhost:8888/signup
//! curl -c jar -b jar -H 'Sec-Fetch-Site: same-origin' -d text='Hello, world' localhost:8888/post
//! curl -c jar -b jar localhost:8888/
//! ```

mod passwords;

use std::time::{SystemTime, UNIX_EPOCH};

use bottle_session::redis_crate::{Commands, pipe};
use bottle_session::{
    App, CsrfPlugin, Form, Html, HttpError, Provided, Redirect, RedisConnection, RedisPlugin,
    RedisPool, Result, Secret, Session, SessionPlugin, abort, escape_html, redirect,
};
use serde::Deserialize;

/// How many posts a timeline keeps.
const LONGEST: isize = 1000;

/// Who is logged in.
struct User {
    name: String,
}

impl Provided for User {}

struct Post {
    author: String,
    text: String,
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: Secret,
}

#[derive(Deserialize)]
struct NewPost {
    text: String,
}

fn main() -> Result<()> {
    let url = std::env::var("REDIS_URL").unwrap_or("redis://localhost:6379/0".to_owned());
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    println!("Sessions and posts are in {url}. Listening on http://{address}");
    app(RedisPool::open(&url)?)?.run(&address)
}

/// The timeline.
pub fn app(pool: RedisPool) -> Result<App> {
    let mut app = App::new();
    app.install(SessionPlugin::new().pool(pool.clone()).cookie_httponly(true))?;
    app.install(RedisPlugin::new().pool(pool))?;
    app.install(CsrfPlugin::new())?;
    app.provide(|session: &mut Session, rdb: &mut RedisConnection| -> Result<User, HttpError> {
        let Some(name) = session.get("user").map(str::to_owned) else {
            return Err(redirect("/login").into());
        };
        match rdb.exists(&format!("user:{name}"))? {
            true => Ok(User { name }),
            false => {
                session.destroy();
                Err(redirect("/login").into())
            }
        }
    });
    app.get("/", home);
    app.get("/public", |rdb: &mut RedisConnection| {
        posts(rdb, "public").map(|all| page("All", &all))
    });
    app.get("/user/<name>", profile);
    app.post("/post", post);
    app.post("/follow/<name>", |user: &User, rdb: &mut RedisConnection, name: &str| {
        follow(user, rdb, name, true)
    });
    app.post("/unfollow/<name>", |user: &User, rdb: &mut RedisConnection, name: &str| {
        follow(user, rdb, name, false)
    });
    app.get(["/login", "/signup"], |session: &mut Session| {
        let form = "<label>Name <input name=\"name\"></label> \
            <label>Password <input name=\"password\" type=\"password\"></label>";
        page("Who are you?", &form_of("", &session.csrf_token(), form, "Go on"))
    });
    app.post("/signup", sign_up);
    app.post("/login", log_in);
    app.post("/logout", |session: &mut Session| {
        session.destroy();
        redirect("/public")
    });
    app.error(404, |error: &HttpError, user: Option<&User>| {
        let who = user.map_or("stranger", |user| &user.name);
        let told = escape_html(error.message());
        page("Not found", &format!("<p>Sorry, {}. {told}</p>", escape_html(who)))
    });
    Ok(app)
}

fn home(
    user: &User,
    session: &mut Session,
    rdb: &mut RedisConnection,
) -> Result<Html<String>, HttpError> {
    let form = "<input name=\"text\" maxlength=\"280\">";
    let form = form_of("/post", &session.csrf_token(), form, "Post");
    let timeline = posts(rdb, &format!("timeline:{}", user.name))?;
    Ok(page(&format!("Hello, {}", escape_html(&user.name)), &format!("{form}{timeline}")))
}

fn profile(
    viewer: Option<&User>,
    session: &mut Session,
    rdb: &mut RedisConnection,
    name: &str,
) -> Result<Html<String>, HttpError> {
    known(rdb, name)?;
    let (key, shown) = (format!("followers:{name}"), escape_html(name));
    // All commands of the `redis` crate work on the connection.
    let followers: u64 = rdb.scard(&key)?;
    let button = match viewer {
        None => String::new(),
        Some(viewer) => {
            let follows: bool = rdb.sismember(&key, &viewer.name)?;
            let verb = if follows { "unfollow" } else { "follow" };
            form_of(&format!("/{verb}/{shown}"), &session.csrf_token(), "", verb)
        }
    };
    let posts = posts(rdb, &format!("posts:{name}"))?;
    Ok(page(&shown, &format!("<p>{followers} followers</p>{button}{posts}")))
}

fn post(
    user: &User,
    rdb: &mut RedisConnection,
    Form(new): Form<NewPost>,
) -> Result<Redirect, HttpError> {
    let text = new.text.trim();
    if text.is_empty() || text.chars().count() > 280 {
        return Err(abort(400, "A post has 1 to 280 characters."));
    }
    let id: u64 = rdb.incr("posts", 1)?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let followers: Vec<String> = rdb.smembers(format!("followers:{}", user.name))?;
    // In one transaction: a post is in every timeline, or in none.
    let mut all = pipe();
    all.atomic().hset_multiple(
        format!("post:{id}"),
        &[("author", user.name.as_str()), ("text", text), ("at", &at.to_string())],
    );
    let timelines = followers.iter().chain([&user.name]).map(|name| format!("timeline:{name}"));
    for list in timelines.chain([format!("posts:{}", user.name), "public".to_owned()]) {
        all.lpush(&list, id).ltrim(&list, 0, LONGEST - 1);
    }
    all.query::<()>(rdb)?;
    Ok(redirect("/"))
}

fn follow(
    user: &User,
    rdb: &mut RedisConnection,
    name: &str,
    follows: bool,
) -> Result<Redirect, HttpError> {
    known(rdb, name)?;
    let key = format!("followers:{name}");
    let _: () = match follows {
        true => rdb.sadd(key, &user.name)?,
        false => rdb.srem(key, &user.name)?,
    };
    Ok(redirect(format!("/user/{name}")))
}

fn sign_up(
    session: &mut Session,
    rdb: &mut RedisConnection,
    Form(new): Form<Credentials>,
) -> Result<Redirect, HttpError> {
    let is_name = |name: &str| {
        (1..=20).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric())
    };
    if !is_name(&new.name) || new.password.expose().len() < 8 {
        return Err(abort(400, "A name has up to 20 letters and digits, a password 8 or more."));
    }
    let hash = passwords::hashed(new.password.expose())?;
    // HSETNX: of two who want one name, one gets it.
    if !rdb.hset_nx::<_, _, _, bool>(format!("user:{}", new.name), "password", hash)? {
        return Err(abort(409, "Somebody has this name already."));
    }
    Ok(enter(session, &new.name))
}

fn log_in(
    session: &mut Session,
    rdb: &mut RedisConnection,
    Form(given): Form<Credentials>,
) -> Result<Redirect, HttpError> {
    let hash: Option<String> = rdb.hget(&format!("user:{}", given.name), "password")?;
    match passwords::is_right(given.password.expose(), hash.as_deref()) {
        true => Ok(enter(session, &given.name)),
        false => Err(abort(401, "Name or password is wrong.")),
    }
}

fn enter(session: &mut Session, name: &str) -> Redirect {
    // A new id for new rights: an id planted before the login is worth nothing after it.
    session.regenerate();
    session.set("user", name);
    redirect("/")
}

fn known(rdb: &mut RedisConnection, name: &str) -> Result<(), HttpError> {
    match rdb.exists(&format!("user:{name}"))? {
        true => Ok(()),
        false => Err(abort(404, format!("Nobody is called {name}."))),
    }
}

fn posts(rdb: &mut RedisConnection, list: &str) -> Result<String, HttpError> {
    let ids: Vec<u64> = rdb.lrange(list, 0, 49)?;
    let mut all = pipe();
    for id in ids {
        all.cmd("HMGET").arg(format!("post:{id}")).arg("author").arg("text");
    }
    let found: Vec<(String, String)> = all.query(rdb)?;
    let posts = found.into_iter().map(|(author, text)| Post { author, text });
    Ok(posts.map(|post| shown(&post)).collect())
}

fn shown(post: &Post) -> String {
    let (author, text) = (escape_html(&post.author), escape_html(&post.text));
    format!("<p><a href=\"/user/{author}\">{author}</a>: {text}</p>")
}

fn form_of(action: &str, token: &str, fields: &str, button: &str) -> String {
    format!(
        "<form method=\"post\" action=\"{action}\"><input type=\"hidden\" name=\"csrf_token\" value=\"{token}\">\
         {fields}<button>{button}</button></form>"
    )
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!("<!DOCTYPE html><title>{title}</title><h1>{title}</h1>{body}"))
}
