//! The program: parse the arguments, run the command, turn the result into an exit code.

fn main() -> std::process::ExitCode {
    vault_audit_filter::cli::main()
}
