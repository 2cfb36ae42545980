//! The floor server: a thread per connection that answers each POST with 204 and does nothing else. It knows `Content-Length` as the
//! load generator writes it, and no limit, no deadline, no error: nothing that has to answer HTTP can cost less.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A running floor server.
pub struct Floor {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Floor {
    /// Starts it on a free port of the loopback interface.
    pub fn start() -> std::io::Result<Floor> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let acceptor = std::thread::Builder::new().name("floor".into()).spawn(move || {
            for stream in listener.incoming() {
                if seen.load(Ordering::SeqCst) {
                    break;
                }
                if let Ok(stream) = stream {
                    // Ends with its connection; the bench closes all of them.
                    let _ =
                        std::thread::Builder::new().name("floor-conn".into()).spawn(move || serve(&stream));
                }
            }
        })?;
        Ok(Floor { address, stop, acceptor: Some(acceptor) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn serve(mut stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 64 << 10];
    let mut filled = 0;
    loop {
        while let Some(end) = request_end(&buffer[..filled]) {
            if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
                return;
            }
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
        if filled == buffer.len() {
            buffer.resize(2 * filled, 0);
        }
        match stream.read(&mut buffer[filled..]) {
            Ok(n) if n > 0 => filled += n,
            _ => return,
        }
    }
}

/// Where the first request ends, if it is all there.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let name = b"Content-Length: ";
    let start = memchr::memmem::find(&bytes[..head], name)? + name.len();
    let digits = bytes[start..].iter().take_while(|b| b.is_ascii_digit());
    let length = digits.fold(0, |n, d| n * 10 + usize::from(d - b'0'));
    (bytes.len() >= head + length).then_some(head + length)
}
