//! The converters that `App::on_error` registers: each makes a response of the errors of one type.

use std::any::TypeId;
use std::error::Error;
use std::sync::Arc;

use crate::error::{causes, find};
use crate::message::http_error::HttpError;
use crate::message::into_response::IntoResponse;
use crate::message::response::Response;
use crate::pipeline::plugin::Callback;

type Convert = Box<dyn Fn(&(dyn Error + 'static)) -> Option<Response> + Send + Sync>;

/// Makes a response of errors of one type.
pub(crate) struct Converter {
    type_id: TypeId,
    convert: Convert,
}

impl Converter {
    pub(crate) fn of<E, R>(convert: impl Fn(&E) -> R + Send + Sync + 'static) -> Converter
    where
        E: Error + Send + Sync + 'static,
        R: IntoResponse,
    {
        Converter {
            type_id: TypeId::of::<E>(),
            convert: Box::new(move |error| Some(convert(find(error)?).into_response())),
        }
    }

    /// Whether both are for errors of the same type.
    pub(crate) fn is_for_same(&self, other: &Converter) -> bool {
        self.type_id == other.type_id
    }
}

/// The converters of a route, those of the innermost app first.
#[derive(Clone, Default)]
pub(crate) struct Converters(Vec<Arc<Converter>>);

impl Converters {
    /// The converters of an app inside the app that has these.
    pub(crate) fn inside(&self, own: Vec<Converter>) -> Converters {
        Converters(own.into_iter().map(Arc::new).chain(self.0.iter().cloned()).collect())
    }

    /// The callback with the errors that it returns converted.
    pub(crate) fn wrap(&self, callback: Callback) -> Callback {
        if self.0.is_empty() {
            return callback;
        }
        let converters = self.clone();
        Callback::new(move |exchange| converters.convert(callback.call(exchange)))
    }

    /// Converts a response that is an error, unless it was converted before.
    pub(crate) fn convert(&self, mut answer: Response) -> Response {
        let error =
            answer.error().filter(|error| answer.needs_error_page() && !error.is_converted());
        let Some(mut made) = error.and_then(|error| self.response_to(error)) else { return answer };
        let Some(error) = answer.take_error() else { return answer };
        match made.take_error() {
            Some(in_place) => in_place.in_place_of(error).into_response(),
            None => {
                let own = std::mem::replace(made.headers_mut(), error.headers().clone());
                made.headers_mut().extend(own);
                let status = made.status();
                // It is no error any more that a page is to show.
                made.set_error_page_of(error.with_status(status));
                made
            }
        }
    }

    /// The response to the outermost cause that has a converter.
    fn response_to(&self, error: &HttpError) -> Option<Response> {
        let mut chain = causes(error.cause()?);
        chain.find_map(|cause| self.0.iter().find_map(|converter| (converter.convert)(cause)))
    }
}
