"""Intake: dossiers from submission to the result in the applicant's hands."""
