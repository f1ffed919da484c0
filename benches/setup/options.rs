//! Options on the command lines of the examples that other programs time.

/// The value of a command-line option.
pub fn option(name: &str, default: &str) -> String {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == name);
    at.and_then(|at| args.get(at + 1)).map_or(default.to_string(), String::clone)
}

/// The value of an option that is a number.
pub fn number(name: &str, default: &str) -> usize {
    option(name, default).parse().unwrap_or_else(|_| panic!("{name} takes a number"))
}
