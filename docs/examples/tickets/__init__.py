"""Tickets: Django with its ORM and admin, and tasks of Celery.

sidelight outbox create sqlite:///tickets.db
export DJANGO_SETTINGS_MODULE=tickets.settings SECRET_KEY=…
python -m django migrate --run-syncdb
gunicorn --workers 2 'django.core.wsgi:get_wsgi_application()'
celery -A tickets.tasks worker
"""
