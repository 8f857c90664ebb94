#![no_main]

use std::cell::RefCell;

use fuzz::Service;

thread_local!(static SERVICE: RefCell<Service> = RefCell::new(Service::start()));

libfuzzer_sys::fuzz_target!(|input: &[u8]| SERVICE.with_borrow_mut(|service| service.event(input)));
