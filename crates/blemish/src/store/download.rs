//! Fetches one file, resumably.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use blemish_core::Session;

use crate::{Error, Result};

/// Fetches `url` into `part`, appending to what is already there if the server allows it.
pub(super) fn fetch(url: &str, part: &Path, expected: u64, session: &Session<'_>) -> Result<()> {
    let failed = |why: String| Error::Download { url: url.to_owned(), why };
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(part).map_err(Error::io(part))?;
    let have = file.seek(SeekFrom::End(0)).map_err(Error::io(part))?;
    let mut request = ureq::get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = match request.call() {
        Ok(response) => response,
        // Nothing is missing.
        Err(ureq::Error::StatusCode(416)) if have > 0 => return Ok(()),
        Err(e) => return Err(failed(format!("{e}\nFetch it by hand and use: blemish weights import FILE"))),
    };
    let resumed = response.status() == 206;
    let mut done = if resumed { have } else { 0 };
    if !resumed {
        file.set_len(0).map_err(Error::io(part))?;
        file.seek(SeekFrom::Start(0)).map_err(Error::io(part))?;
    }
    let length = response.headers().get("content-length").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let total = length.map_or(expected, |n| n + done);
    // In kilobytes: a progress bar counts in machine words, and the size is only known that well beforehand.
    let task = session.task("download", (total / 1024) as usize);
    task.step((done / 1024) as usize)?;
    let mut reader = response.body_mut().with_config().limit(u64::MAX).reader();
    let mut buffer = vec![0; 1 << 16];
    let mut told = done / 1024;
    loop {
        let n = reader.read(&mut buffer).map_err(|e| failed(format!("{e}; run the command again to go on")))?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n]).map_err(Error::io(part))?;
        done += n as u64;
        task.step((done / 1024 - told) as usize)?;
        told = done / 1024;
    }
    file.sync_all().map_err(Error::io(part))?;
    if length.is_some() && done < total {
        return Err(failed(format!(
            "the connection ended after {done} of {total} bytes; run the command again to go on"
        )));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Serves `body` to `times` requests, honouring ranges; sends only `cut` bytes of the first answer.
    pub(in crate::store) fn serve(body: Vec<u8>, times: usize, cut: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/weights.pth", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for turn in 0..times {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0; 1];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    request.push(byte[0]);
                }
                let request = String::from_utf8_lossy(&request).to_lowercase();
                let from =
                    request.split("range: bytes=").nth(1).and_then(|r| r.split('-').next()?.parse::<usize>().ok());
                let part = &body[from.unwrap_or(0)..];
                let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", part.len());
                stream.write_all(head.as_bytes()).unwrap();
                let send = if turn == 0 { cut.min(part.len()) } else { part.len() };
                let _ = stream.write_all(&part[..send]);
            }
        });
        url
    }

    #[test]
    fn an_interrupted_download_goes_on() {
        let body: Vec<u8> = (0..200_000u32).map(|i| (i * 31 % 251) as u8).collect();
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("w.part");
        let url = serve(body.clone(), 2, 70_000);
        let session = Session::quiet(0);
        assert!(fetch(&url, &part, 200_000, &session).is_err());
        let have = std::fs::metadata(&part).unwrap().len();
        assert!(have > 0 && have < 200_000, "{have}");
        fetch(&url, &part, 200_000, &session).unwrap();
        assert_eq!(std::fs::read(&part).unwrap(), body);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/w", listener.local_addr().unwrap());
        drop(listener);
        let error = fetch(&url, &dir.path().join("w.part"), 1, &Session::quiet(0)).unwrap_err().to_string();
        assert!(error.contains("weights import"), "{error}");
    }
}
