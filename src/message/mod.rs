//! What travels: requests, responses, and what they are made of.

pub(crate) mod accept;
pub(crate) mod address;
pub(crate) mod backtrace;
pub(crate) mod base64;
pub(crate) mod body;
pub(crate) mod cookies;
pub(crate) mod error_page;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod forms;
pub(crate) mod from_error;
pub(crate) mod http_error;
pub(crate) mod into_response;
pub(crate) mod redirect;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod response_head;
#[cfg(feature = "secure-cookies")]
pub(crate) mod secure_cookies;
pub(crate) mod static_file;
pub(crate) mod status;
