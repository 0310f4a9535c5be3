"""The Celery door: tasks of a few lines over the services, and the timetable. A task carries ids at most, and may run twice."""
