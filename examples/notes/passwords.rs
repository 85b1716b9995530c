//! Passwords: what of them is kept, and whether one is right.

use argon2::password_hash::SaltString;
use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use bottle_session::{Error, Result};

/// What is kept of a password (Argon2id with the parameters of OWASP's Password Storage Cheat Sheet).
pub fn hashed(password: &str) -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(Error::other)?;
    let refused = |error: argon2::password_hash::Error| Error::other(error.to_string());
    let salt = SaltString::encode_b64(&random).map_err(refused)?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(refused)?;
    Ok(hash.to_string())
}

/// Whether this is the password of that hash. Where there is no hash it takes as long to say no, so that nobody learns
/// which names there are.
pub fn is_right(password: &str, hash: Option<&str>) -> bool {
    const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5aXNoZXJl$\
        Xb5nL9lmSvxHVI8kXmXbZV0Mg3xYvxB3QxqEwC4wqXs";
    let parsed = PasswordHash::new(hash.unwrap_or(NOBODYS));
    let right = parsed.is_ok_and(|parsed| {
        Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok()
    });
    right && hash.is_some()
}
