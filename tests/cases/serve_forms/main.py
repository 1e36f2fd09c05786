"""Files that are uploaded."""


def handler(event):
    return {
        "fields": event.form,
        "files": {
            name: [part.filename, part.content_type, len(part.body), part.file.read(4).hex()]
            for name, part in event.files.items()
        },
        "parts": len(event.parts),
        "raw": type(event.body).__name__,
    }
