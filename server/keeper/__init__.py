"""The keeper as gunicorn hosts it, and the way to it from web workers."""
